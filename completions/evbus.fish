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

set -g __evbus_commands topic-list topic-create topic-describe completion help version

complete -c evbus -f

complete -c evbus -n __fish_is_first_arg -a topic-list -d 'list the topics of a bus'
complete -c evbus -n '__evbus_command topic-list' -x -a '(__evbus_ask topic-list)'
complete -c evbus -n '__evbus_command topic-list' -s t -l topic -x -a '(__evbus_ask topic-list)' -d 'only this one, or a pattern: * for one token, > for the rest'
complete -c evbus -n '__evbus_command topic-list' -l format -x -a 'table json tsv' -d 'how to print'
complete -c evbus -n '__evbus_command topic-list' -s b -l bus -x -d 'which bus'
complete -c evbus -n '__evbus_command topic-list' -l store -x -d 'where checkpoints are kept (default: in the bus)'
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
complete -c evbus -n '__evbus_command topic-create' -l store -x -d 'where checkpoints are kept (default: in the bus)'
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
complete -c evbus -n '__evbus_command topic-describe' -l store -x -d 'where checkpoints are kept (default: in the bus)'
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
