/* doc.h: documentation, printed from the declarations. */
#ifndef DOC_H
#define DOC_H

#include "out.h"

/* Help of a command, or with NULL the list of all. */
CHECKED enum evbus_code doc_help(struct call *call, const struct command *command);

/* The manual page of a command, or with NULL evbus(1), in mdoc; its prose comes from a file. */
CHECKED enum evbus_code doc_manual(struct call *call, const struct command *command, const char *prose_path);

/* Completion scripts. */
CHECKED enum evbus_code doc_bash(struct call *call);
CHECKED enum evbus_code doc_zsh(struct call *call);
CHECKED enum evbus_code doc_fish(struct call *call);

/* What completes the value of an option, or an operand: "TOPIC", "GROUP", "FILE", "DIR", "COMMAND", words "a|b|c", or
 * "" for nothing. */
const char *opt_completes(const struct opt *opt);
const char *operand_completes(const struct command *command);

/* The exit statuses that a command (NULL: any) may end with: calls print for each. */
void doc_statuses(const struct command *command, void (*print)(enum evbus_code code, const char *means));

/* "where to append (default: x)" */
#define HELP_MAX_BYTES 512u
void opt_help(const struct opt *opt, char text[HELP_MAX_BYTES]);

#endif
