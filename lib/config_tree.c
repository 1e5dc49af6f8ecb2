/* config_tree.c: the tree of a configuration; the module that reads YAML has it, too, and no more of the library than it
 * needs. */
#include "config.h"

#include "base/os.h"

#include <string.h>

struct node *tree_add(struct tree *tree, enum node_kind kind, struct evbus_slice text)
{
	struct node *node = os.realloc(NULL, sizeof *node + text.len + 1);

	if (!node)
		return NULL;
	*node = (struct node){ .kind = kind, .older = tree->newest };
	memcpy(node->text, text.data, text.len);
	node->text[text.len] = '\0';
	tree->newest = node;
	tree->count++;
	return node;
}

void tree_release(struct tree *tree)
{
	for (struct node *node = tree->newest, *older; node; node = older) {
		older = node->older;
		free(node);
	}
	*tree = (struct tree){ .root = NULL };
}
