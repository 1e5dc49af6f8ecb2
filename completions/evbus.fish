# fish completion for evbus, printed by `evbus completion fish`

# The command of the line: evbus publish, evbus topic list, evbus topic.
function __evbus_command
	set -l words (commandline -opc)
	set -q words[2]; or return 1
	set -l command $words[2]
	if set -q words[3]; and contains -- $command-$words[3] $__evbus_commands
		set command $command-$words[3]
	end
	contains -- $command $__evbus_commands; or set command $command-list
	test "$command" = "$argv[1]"
end

# What is asked of evbus has 300 ms and must not disturb the line that is being typed.
function __evbus_ask
	set -l words (commandline -opc)
	set -l bus
	for i in (seq (count $words))
		switch $words[$i]
			case -b --bus
				set bus --bus $words[(math $i + 1)]
			case '--bus=*'
				set bus $words[$i]
		end
	end
	timeout 0.3 evbus $argv $bus --quiet --format tsv 2>/dev/null </dev/null | cut -f 1 | sort -u
end

set -g __evbus_commands publish tail replay checkpoint-list checkpoint-get checkpoint-set checkpoint-remove verify topic-list topic-create topic-describe completion help version

complete -c evbus -f

complete -c evbus -n __fish_is_first_arg -a publish -d 'append each JSON line to a topic and print a receipt for it'
complete -c evbus -n '__evbus_command publish' -r -F
complete -c evbus -n '__evbus_command publish' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'where to append; with --records each keeps its own if this is not given'
complete -c evbus -n '__evbus_command publish' -s k -l key -x -d 'choose the partition by this key'
complete -c evbus -n '__evbus_command publish' -l key-from -x -d 'choose it by the first of these members that an event has'
complete -c evbus -n '__evbus_command publish' -s p -l partition -x -d 'choose the partition by its number'
complete -c evbus -n '__evbus_command publish' -l atomic -d 'append all events or none, at most 4 MiB, to one partition'
complete -c evbus -n '__evbus_command publish' -l expect-offset -x -d 'append only if this is the next offset'
complete -c evbus -n '__evbus_command publish' -l no-create -d 'fail where the topic is not there, instead of making it'
complete -c evbus -n '__evbus_command publish' -l max-payload -x -d 'refuse larger events, at most 3M'
complete -c evbus -n '__evbus_command publish' -l multiline -d 'an event may go over several lines, which become one'
complete -c evbus -n '__evbus_command publish' -l records -d 'take records as evbus prints them, and publish their payloads'
complete -c evbus -n '__evbus_command publish' -l on-error -x -a 'stop skip' -d 'what to do at an event that is refused'
complete -c evbus -n '__evbus_command publish' -l rejects -r -F -d 'with --on-error skip: append what is refused to this file'
complete -c evbus -n '__evbus_command publish' -l format -x -a 'json payload stored pretty tsv' -d 'json, payload, stored, pretty, tsv or a template: \'{topic} {offset} {/id}\\n\''
complete -c evbus -n '__evbus_command publish' -s q -l quiet -d 'print no receipts, and on stderr only warnings and errors'
complete -c evbus -n '__evbus_command publish' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command publish' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command publish' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command publish' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command publish' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a tail -d 'look at records: the last ones, from a position, or as they come'
complete -c evbus -n '__evbus_command tail' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'which topic, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command tail' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command tail' -s g -l group -x -a '(__evbus_ask checkpoint-list)' -d 'begin at this group\'s checkpoint'
complete -c evbus -n '__evbus_command tail' -s o -l offset -l from-offset -x -a 'beginning end stored' -d 'begin here: N, beginning, end, -N, @TIME or stored'
complete -c evbus -n '__evbus_command tail' -l to-offset -x -a 'beginning end stored' -d 'end before this one'
complete -c evbus -n '__evbus_command tail' -s S -l since -x -d 'only what was published at or after: RFC 3339, -15m, Unix seconds'
complete -c evbus -n '__evbus_command tail' -s U -l until -x -d 'only what was published before'
complete -c evbus -n '__evbus_command tail' -l type -x -d 'only events of this type'
complete -c evbus -n '__evbus_command tail' -l tenant -x -d 'only events of this tenant'
complete -c evbus -n '__evbus_command tail' -l correlation-id -x -d 'only events with this correlation id'
complete -c evbus -n '__evbus_command tail' -l event-key -x -d 'only events with this event key'
complete -c evbus -n '__evbus_command tail' -l where -x -d 'only where this member has this value; may be repeated'
complete -c evbus -n '__evbus_command tail' -s n -l last -x -d 'begin so many records before the end (10, where none of -n, -o, -S, -U and -g is given)'
complete -c evbus -n '__evbus_command tail' -s f -l follow -d 'go on as records come, and as topics appear'
complete -c evbus -n '__evbus_command tail' -l max -x -d 'stop after so many'
complete -c evbus -n '__evbus_command tail' -l timeout -x -d 'give up after this time, with exit status 75'
complete -c evbus -n '__evbus_command tail' -l count -d 'print only how many there are'
complete -c evbus -n '__evbus_command tail' -l format -x -a 'json payload stored pretty tsv' -d 'json, payload, stored, pretty, tsv or a template: \'{topic} {offset} {/id}\\n\''
complete -c evbus -n '__evbus_command tail' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command tail' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command tail' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command tail' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command tail' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command tail' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a replay -d 'deliver a range of records again: to stdout, a topic or another bus'
complete -c evbus -n '__evbus_command replay' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'which topic, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command replay' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command replay' -s g -l group -x -a '(__evbus_ask checkpoint-list)' -d 'begin at this group\'s checkpoint'
complete -c evbus -n '__evbus_command replay' -s o -l offset -l from-offset -x -a 'beginning end stored' -d 'begin here: N, beginning, end, -N, @TIME or stored'
complete -c evbus -n '__evbus_command replay' -l to-offset -x -a 'beginning end stored' -d 'end before this one'
complete -c evbus -n '__evbus_command replay' -s S -l since -x -d 'only what was published at or after: RFC 3339, -15m, Unix seconds'
complete -c evbus -n '__evbus_command replay' -s U -l until -x -d 'only what was published before'
complete -c evbus -n '__evbus_command replay' -l type -x -d 'only events of this type'
complete -c evbus -n '__evbus_command replay' -l tenant -x -d 'only events of this tenant'
complete -c evbus -n '__evbus_command replay' -l correlation-id -x -d 'only events with this correlation id'
complete -c evbus -n '__evbus_command replay' -l event-key -x -d 'only events with this event key'
complete -c evbus -n '__evbus_command replay' -l where -x -d 'only where this member has this value; may be repeated'
complete -c evbus -n '__evbus_command replay' -l to-topic -x -a '(__evbus_ask topic-list)' -d 'publish to this topic, and print receipts'
complete -c evbus -n '__evbus_command replay' -l to-bus -x -d 'publish to this bus, and print receipts'
complete -c evbus -n '__evbus_command replay' -l to-partition -x -d 'publish to this partition'
complete -c evbus -n '__evbus_command replay' -s k -l key -x -d 'publish with this key instead of the record\'s own'
complete -c evbus -n '__evbus_command replay' -l key-from -x -d 'publish with the key that stands here: /merchant_id,/event_id; the first that is there'
complete -c evbus -n '__evbus_command replay' -l rate -x -d 'at most so many a second, evenly: 100, 100/s, 30/m, 1000/h'
complete -c evbus -n '__evbus_command replay' -l max -x -d 'stop after so many'
complete -c evbus -n '__evbus_command replay' -l count -d 'print only how many there are'
complete -c evbus -n '__evbus_command replay' -l dry-run -d 'publish nothing, print how many there are'
complete -c evbus -n '__evbus_command replay' -l format -x -a 'json payload stored pretty tsv' -d 'json, payload, stored, pretty, tsv or a template: \'{topic} {offset} {/id}\\n\''
complete -c evbus -n '__evbus_command replay' -s q -l quiet -d 'print no receipts, and on stderr only warnings and errors'
complete -c evbus -n '__evbus_command replay' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command replay' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command replay' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command replay' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command replay' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a checkpoint-list -d 'list the checkpoints of groups, and how far behind they are'
complete -c evbus -n '__evbus_command checkpoint-list' -s g -l group -x -a '(__evbus_ask checkpoint-list)' -d 'only of this group'
complete -c evbus -n '__evbus_command checkpoint-list' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'only on this one, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command checkpoint-list' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command checkpoint-list' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command checkpoint-list' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command checkpoint-list' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command checkpoint-list' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command checkpoint-list' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command checkpoint-list' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command checkpoint-list' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a checkpoint-get -d 'print the checkpoint of a group on a topic'
complete -c evbus -n '__evbus_command checkpoint-get' -s g -l group -x -a '(__evbus_ask checkpoint-list)' -d 'of which group'
complete -c evbus -n '__evbus_command checkpoint-get' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'on which topic'
complete -c evbus -n '__evbus_command checkpoint-get' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command checkpoint-get' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command checkpoint-get' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command checkpoint-get' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command checkpoint-get' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command checkpoint-get' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command checkpoint-get' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command checkpoint-get' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a checkpoint-set -d 'move the checkpoint of a group, and print where it was and is'
complete -c evbus -n '__evbus_command checkpoint-set' -s g -l group -x -a '(__evbus_ask checkpoint-list)' -d 'of which group'
complete -c evbus -n '__evbus_command checkpoint-set' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'on which topic'
complete -c evbus -n '__evbus_command checkpoint-set' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command checkpoint-set' -s o -l offset -x -a 'beginning end stored' -d 'the first that is not yet done: N, beginning, end, -N or @TIME'
complete -c evbus -n '__evbus_command checkpoint-set' -l from-file -r -F -d 'all that checkpoint-list printed as json or tsv; - for standard input'
complete -c evbus -n '__evbus_command checkpoint-set' -l dry-run -d 'change nothing, print the same'
complete -c evbus -n '__evbus_command checkpoint-set' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command checkpoint-set' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command checkpoint-set' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command checkpoint-set' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command checkpoint-set' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command checkpoint-set' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command checkpoint-set' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a checkpoint-remove -d 'remove checkpoints of a group, and print them'
complete -c evbus -n '__evbus_command checkpoint-remove' -s g -l group -x -a '(__evbus_ask checkpoint-list)' -d 'of which group'
complete -c evbus -n '__evbus_command checkpoint-remove' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'on which topic, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command checkpoint-remove' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command checkpoint-remove' -l dry-run -d 'remove nothing, print the same'
complete -c evbus -n '__evbus_command checkpoint-remove' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command checkpoint-remove' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command checkpoint-remove' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command checkpoint-remove' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command checkpoint-remove' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command checkpoint-remove' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command checkpoint-remove' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a verify -d 'prove that logs are whole, or tell what is damaged'
complete -c evbus -n '__evbus_command verify' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'only this one, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command verify' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command verify' -l deep -d 'parse payloads too; find event ids that stand twice and events out of order'
complete -c evbus -n '__evbus_command verify' -l repair -d 'cut an interrupted write off the end, after copying it'
complete -c evbus -n '__evbus_command verify' -l cut-at -x -d 'with --repair: cut there, at the first damage that was reported, after copying'
complete -c evbus -n '__evbus_command verify' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command verify' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command verify' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command verify' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command verify' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command verify' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command verify' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a topic-list -d 'list the topics of a bus'
complete -c evbus -n '__evbus_command topic-list' -x -a '(__evbus_ask topic-list)'
complete -c evbus -n '__evbus_command topic-list' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'only this one, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command topic-list' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command topic-list' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command topic-list' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command topic-list' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command topic-list' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command topic-list' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command topic-list' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a topic-create -d 'make a topic, and say what it is'
complete -c evbus -n '__evbus_command topic-create' -x -a '(__evbus_ask topic-list)'
complete -c evbus -n '__evbus_command topic-create' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'its name: tokens of letters, digits, _ and -, joined by dots'
complete -c evbus -n '__evbus_command topic-create' -l partitions -x -d 'how many partitions'
complete -c evbus -n '__evbus_command topic-create' -l segment-size -x -d 'begin a new file before one grows beyond this (default: 1GiB)'
complete -c evbus -n '__evbus_command topic-create' -l file-mode -x -d 'of the files that are made'
complete -c evbus -n '__evbus_command topic-create' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command topic-create' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command topic-create' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command topic-create' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command topic-create' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command topic-create' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command topic-create' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a topic-describe -d 'tell what a topic holds, by partition'
complete -c evbus -n '__evbus_command topic-describe' -x -a '(__evbus_ask topic-list)'
complete -c evbus -n '__evbus_command topic-describe' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'which one, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command topic-describe' -s p -l partition -x -d 'only this partition'
complete -c evbus -n '__evbus_command topic-describe' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command topic-describe' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command topic-describe' -l store -x -d 'where checkpoints are kept, sqlite:FILE (default: in the bus)'
complete -c evbus -n '__evbus_command topic-describe' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command topic-describe' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command topic-describe' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command topic-describe' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a completion -d 'print a completion script for a shell'
complete -c evbus -n '__evbus_command completion' -x -a 'bash zsh fish'
complete -c evbus -n '__evbus_command completion' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command completion' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command completion' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command completion' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a help -d 'list the commands, or explain one'
complete -c evbus -n '__evbus_command help' -x -a '$__evbus_commands'
complete -c evbus -n '__evbus_command help' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command help' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command help' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command help' -s h -l help -d 'print this help'

complete -c evbus -n __fish_is_first_arg -a version -d 'print the version'
complete -c evbus -n '__evbus_command version' -l log -x -a 'text json' -d 'how to talk on stderr'
complete -c evbus -n '__evbus_command version' -s q -l quiet -d 'say nothing on stderr but warnings and errors'
complete -c evbus -n '__evbus_command version' -s v -l verbose -d 'say more on stderr'
complete -c evbus -n '__evbus_command version' -s h -l help -d 'print this help'
