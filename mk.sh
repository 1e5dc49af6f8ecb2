CC=${CC:-gcc}
I="-I/tmp/w/scan/lib -I/tmp/w/scan -D_GNU_SOURCE -std=c17 -O2 -g -Wall -Wextra -Wconversion"
$CC $I -o /tmp/w/scan-x/micro-$CC /tmp/w/scan-x/micro.c /tmp/w/scan/lib/event/json.c /tmp/w/scan/lib/event/json_blocks.c /tmp/w/scan/lib/event/json_value.c /tmp/w/scan/lib/base/buf.c /tmp/w/scan/lib/base/err.c /tmp/w/scan/lib/base/os.c 2>&1 | grep -v micro.c | head -40
