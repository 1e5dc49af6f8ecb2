/* locks.c: taking and leaving the locks of a partition that is open for writing. */
#include "log/writer.h"

enum evbus_code writer_lock(struct log_writer *writer, enum control_lock which, short type, struct evbus_err *err)
{
	bool append = which == LOCK_APPEND;

	return control_lock(append ? writer->fd : writer->control.fd, which, type,
			    append ? writer->name : writer->control.path, writer->waiter, err);
}

enum evbus_code writer_lock_both(struct log_writer *writer, struct evbus_err *err)
{
	TRY(writer_lock(writer, LOCK_SYNC, F_WRLCK, err));
	enum evbus_code code = writer_lock(writer, LOCK_APPEND, F_WRLCK, err);
	if (code != EVBUS_OK) {
		control_unlock(writer->control.fd, LOCK_SYNC);
		control_wake(&writer->control);
	}
	return code;
}

void writer_unlock_both(struct log_writer *writer, bool wake)
{
	control_unlock(writer->fd, LOCK_APPEND);
	control_unlock(writer->control.fd, LOCK_SYNC);
	if (wake)
		control_wake(&writer->control);
}

void writer_leave_lead(struct log_writer *writer)
{
	if (!writer->leads)
		return;
	writer->leads = false;
	control_unlock(writer->control.fd, LOCK_SYNC);
	control_wake(&writer->control);
}
