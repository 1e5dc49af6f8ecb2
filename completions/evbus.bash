# bash completion for evbus, printed by `evbus completion bash`

# What is asked of evbus has 300 ms and must not disturb the line that is being typed.
_evbus_ask() {
	local i bus=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-b | --bus)
			[[ ${COMP_WORDS[i + 1]} == '=' ]] && ((i++))
			bus=(--bus "${COMP_WORDS[i + 1]}") ;;
		esac
	done
	timeout 0.3 evbus "$@" "${bus[@]}" --quiet --format tsv 2>/dev/null </dev/null | cut -f 1 | sort -u
}

# Not compgen -W, which would expand what the names contain.
_evbus_names() {
	local name
	while IFS= read -r name; do
		[[ $name == "$2"* ]] && printf -v name %q "$name" && COMPREPLY+=("$name")
	done < <(_evbus_ask "$1")
}

_evbus_values() {
	case $1 in
	TOPIC) _evbus_names topic-list "$2" ;;
	GROUP) _evbus_names checkpoint-list "$2" ;;
	FILE) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
	DIR) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
	COMMAND) COMPREPLY=($(compgen -W "$_evbus_commands" -- "$2")) ;;
	*) COMPREPLY=($(compgen -W "${1//|/ }" -- "$2")) ;;
	esac
}

_evbus_commands='publish tail replay consume checkpoint-list checkpoint-get checkpoint-set checkpoint-remove outbox-init outbox-add outbox-list outbox-drain dlq-list dlq-show dlq-retry dlq-discard sweep verify topic-list topic-create topic-describe config completion help version'

_evbus_options() {
	case $1 in
	publish)
		options='--topic -t --key -k --key-from --partitioning --partition -p --atomic --expect-offset --idempotent --event-key-from --no-create --max-payload --multiline --records --on-error --rejects --format --quiet -q --bus -b --bus-option -X --store --config --profile --log --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --key: -k: --key-from: --partitioning: --partition: -p: --expect-offset: --event-key-from: --max-payload: --on-error:stop|skip --rejects:FILE --format:json|payload|stored|pretty|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='FILE' ;;
	tail)
		options='--topic -t --partition -p --group -g --offset --from-offset -o --to-offset --since -S --until -U --type --tenant --correlation-id --event-key --where --last -n --follow -f --max --timeout --count --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --partition: -p: --group:GROUP -g:GROUP --offset:beginning|end|stored --from-offset:beginning|end|stored -o:beginning|end|stored --to-offset:beginning|end|stored --since: -S: --until: -U: --type: --tenant: --correlation-id: --event-key: --where: --last: -n: --max: --timeout: --format:json|payload|stored|pretty|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	replay)
		options='--topic -t --partition -p --group -g --offset --from-offset -o --to-offset --since -S --until -U --type --tenant --correlation-id --event-key --where --to-topic --to-bus --to-partition --key -k --key-from --rate --max --count --dry-run --handler-timeout --on-error --format --quiet -q --bus -b --bus-option -X --store --config --profile --log --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --partition: -p: --group:GROUP -g:GROUP --offset:beginning|end|stored --from-offset:beginning|end|stored -o:beginning|end|stored --to-offset:beginning|end|stored --since: -S: --until: -U: --type: --tenant: --correlation-id: --event-key: --where: --to-topic:TOPIC --to-bus: --to-partition: --key: -k: --key-from: --rate: --max: --handler-timeout: --on-error:stop|skip --format:json|payload|stored|pretty|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	consume)
		options='--topic -t --group -g --partition -p --offset --from-offset -o --type --tenant --correlation-id --event-key --where --follow -f --max --timeout --concurrency --handler-timeout --retry-max --retry-delay --retry-factor --retry-cap --on-dead --inbox --commit-every --commit-interval --no-wait --coprocess --window --quiet -q --bus -b --bus-option -X --store --config --profile --log --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --group:GROUP -g:GROUP --partition: -p: --offset:beginning|end|stored --from-offset:beginning|end|stored -o:beginning|end|stored --type: --tenant: --correlation-id: --event-key: --where: --max: --timeout: --concurrency: --handler-timeout: --retry-max: --retry-delay: --retry-factor: --retry-cap: --on-dead:pass|stop --commit-every: --commit-interval: --window: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	checkpoint-list)
		options='--group -g --topic -t --partition -p --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--group:GROUP -g:GROUP --topic:TOPIC -t:TOPIC --partition: -p: --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	checkpoint-get)
		options='--group -g --topic -t --partition -p --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--group:GROUP -g:GROUP --topic:TOPIC -t:TOPIC --partition: -p: --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	checkpoint-set)
		options='--group -g --topic -t --partition -p --offset -o --from-file --dry-run --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--group:GROUP -g:GROUP --topic:TOPIC -t:TOPIC --partition: -p: --offset:beginning|end|stored -o:beginning|end|stored --from-file:FILE --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	checkpoint-remove)
		options='--group -g --topic -t --partition -p --dry-run --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--group:GROUP -g:GROUP --topic:TOPIC -t:TOPIC --partition: -p: --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	outbox-init)
		options='--outbox --map --wrap --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	outbox-add)
		options='--topic -t --type --id --tenant-id --event-key --key -k --key-from --max-payload --format --outbox --map --wrap --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --type: --id: --tenant-id: --event-key: --key: -k: --key-from: --max-payload: --format:id|json --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='FILE' ;;
	outbox-list)
		options='--state --blocked --topic -t --tenant --max --payload --counts --format --outbox --map --wrap --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--state:PENDING|PROCESSING|SENT|FAILED --topic:TOPIC -t:TOPIC --tenant: --max: --format:table|json|tsv --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	outbox-drain)
		options='--follow -f --batch --concurrency --lease --interval --retry-max --retry-delay --retry-factor --retry-cap --max --timeout --max-payload --to-bus --dry-run --format --outbox --map --wrap --quiet -q --bus -b --bus-option -X --store --config --profile --log --verbose -v --help -h'
		values='--batch: --concurrency: --lease: --interval: --retry-max: --retry-delay: --retry-factor: --retry-cap: --max: --timeout: --max-payload: --to-bus: --format:json|payload|stored|pretty|tsv --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	dlq-list)
		options='--topic -t --group -g --source --type --tenant --reason --older-than --newer-than --id --state --by --max --payload --format --outbox --map --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --group:GROUP -g:GROUP --source: --type: --tenant: --reason:refused|retries|timeout|signal|not_json|too_large|backend --older-than: --newer-than: --id: --state:dead|queued|retried|discarded|all --by:reason|type|topic|group|tenant --max: --format:table|json|tsv --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	dlq-show)
		options='--tenant --format --outbox --map --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--tenant: --format:text|json|payload --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	dlq-retry)
		options='--topic -t --group -g --source --type --tenant --reason --older-than --newer-than --id --ids-from --all --max --max-returns --rate --republish --handler-timeout --dry-run --format --outbox --map --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --group:GROUP -g:GROUP --source: --type: --tenant: --reason:refused|retries|timeout|signal|not_json|too_large|backend --older-than: --newer-than: --id: --ids-from:FILE --max: --max-returns: --rate: --handler-timeout: --format:table|json|tsv --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	dlq-discard)
		options='--topic -t --group -g --source --type --tenant --reason --older-than --newer-than --id --ids-from --all --undo --dry-run --format --outbox --map --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --group:GROUP -g:GROUP --source: --type: --tenant: --reason:refused|retries|timeout|signal|not_json|too_large|backend --older-than: --newer-than: --id: --ids-from:FILE --format:table|json|tsv --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	sweep)
		options='--sent-older-than --inbox-older-than --dlq-older-than --dry-run --format --outbox --map --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--sent-older-than: --inbox-older-than: --dlq-older-than: --format:table|json|tsv --outbox: --map: --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	verify)
		options='--topic -t --partition -p --deep --repair --cut-at --rebuild-keys --against --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --partition: -p: --cut-at: --against: --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	topic-list)
		options='--topic -t --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='TOPIC' ;;
	topic-create)
		options='--topic -t --partitions --segment-size --file-mode --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --partitions: --segment-size: --file-mode: --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='TOPIC' ;;
	topic-describe)
		options='--topic -t --partition -p --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--topic:TOPIC -t:TOPIC --partition: -p: --format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='TOPIC' ;;
	config)
		options='--path --format --bus -b --bus-option -X --store --config --profile --log --quiet -q --verbose -v --help -h'
		values='--format:table|json|tsv --bus: -b: --bus-option: -X: --store: --config:FILE --profile: --log:text|json'
		operands='' ;;
	completion)
		options='--log --quiet -q --verbose -v --help -h'
		values='--log:text|json'
		operands='bash|zsh|fish' ;;
	help)
		options='--log --quiet -q --verbose -v --help -h'
		values='--log:text|json'
		operands='COMMAND' ;;
	version)
		options='--format --log --quiet -q --verbose -v --help -h'
		values='--format:text|json --log:text|json'
		operands='' ;;
	esac
}

_evbus() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} i=1
	local command=${COMP_WORDS[0]##*/} options='' values='' operands=''
	COMPREPLY=()
	if [[ $command == evbus-* ]]; then
		command=${command#evbus-}
	elif ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W "$_evbus_commands --help --version" -- "$cur"))
		return
	else
		command=${COMP_WORDS[1]}
		[[ $COMP_CWORD -gt 2 && " $_evbus_commands " == *" $command-${COMP_WORDS[2]} "* ]] &&
			command+=-${COMP_WORDS[2]}
	fi
	[[ " $_evbus_commands " == *" $command "* ]] || command+=-list
	_evbus_options "$command"
	# --name=value comes as three words.
	if [[ $cur == '=' ]]; then
		cur=''
	elif [[ $prev == '=' ]]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	for i in $values; do
		if [[ $i == "$prev:"* ]]; then
			_evbus_values "${i#*:}" "$cur"
			return
		fi
	done
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$options" -- "$cur"))
	else
		_evbus_values "$operands" "$cur"
	fi
}

complete -F _evbus evbus evbus-publish evbus-tail evbus-replay evbus-consume evbus-checkpoint-list evbus-checkpoint-get evbus-checkpoint-set evbus-checkpoint-remove evbus-outbox-init evbus-outbox-add evbus-outbox-list evbus-outbox-drain evbus-dlq-list evbus-dlq-show evbus-dlq-retry evbus-dlq-discard evbus-sweep evbus-verify evbus-topic-list evbus-topic-create evbus-topic-describe evbus-config evbus-completion evbus-help evbus-version
