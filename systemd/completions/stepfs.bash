# bash completion for stepfs                                             -*- shell-script -*-

_stepfs_mountpoints() {
    local _ place kind
    while read -r _ place kind _; do
        [[ $kind == fuse.stepfs ]] && printf '%b\n' "$place"
    done </proc/self/mounts
}

_stepfs() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' flags='' word
    local commands='mount umount status ls show search usage new append follow errors check demo'
    local options='ro allow_other uid= gid= umask= memory= cache= line_limit= pending= deadline= notify= sync=close
        sync=always sync=never'
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == -* ]] || { command=$word && break; }
    done
    if [[ $cur == '=' || $prev == '=' ]]; then # where Readline cuts an option in two
        [[ $cur == '=' ]] && cur=''
        case " ${COMP_WORDS[*]:0:COMP_CWORD}" in
            *sync | *'sync =') mapfile -t COMPREPLY < <(compgen -W 'close always never' -- "$cur") ;;
            *memory | *'memory =') mapfile -t COMPREPLY < <(compgen -f -W none -- "$cur") ;;
        esac
        return
    fi

    case $prev in
        -o | --options)
            local given=''
            [[ $cur == *,* ]] && given=${cur%,*},
            mapfile -t COMPREPLY < <(compgen -P "$given" -W "$options" -- "${cur##*,}")
            compopt -o nospace
            return
            ;;
        --log-format)
            mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur")
            return
            ;;
        --sort)
            mapfile -t COMPREPLY < <(
                compgen -W 'changed created session agent title messages' -- "$cur"
            )
            return
            ;;
        --role)
            mapfile -t COMPREPLY < <(compgen -W 'system user assistant tool' -- "$cur")
            return
            ;;
        --by)
            mapfile -t COMPREPLY < <(compgen -W 'session model day' -- "$cur")
            return
            ;;
        --agent | --created-by | --match | --model | --since | --until | --title | --from | --at | -n | --first | --last)
            return
            ;;
        --log-level)
            mapfile -t COMPREPLY < <(compgen -W 'debug info notice warning error' -- "$cur")
            return
            ;;
    esac

    case $command in
        mount) flags='-f --foreground -o --options --log-format --log-level --log-file --help' ;;
        umount) flags='-l --lazy --help' ;;
        status) flags='--json --help' ;;
        ls)
            flags='--agent --created-by --match --since --until --sort -r --reverse -n --first
                --json --help'
            ;;
        search)
            flags='-F --fixed -i --ignore-case -l --sessions --role --agent --since --until
                --tools --json --help'
            ;;
        usage)
            flags='--by --agent --created-by --match --model --since --until --json --help'
            ;;
        show) flags='--markdown --json --help' ;;
        new) flags='--agent --created-by --title --from --at --json --help' ;;
        append) flags='--role --json --help' ;;
        errors) flags='-f --follow -n --last --json --help' ;;
        follow) flags='--from-start --json --help' ;;
        check) flags='--repair --peer --help' ;;
        demo) flags='--help' ;;
        '') flags='--version --help' ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    elif [[ $command == umount || $command == status || $command == errors ]]; then
        local IFS=$'\n'
        mapfile -t COMPREPLY < <(compgen -W "$(_stepfs_mountpoints)" -- "$cur")
        compopt -o filenames
    elif [[ $command == follow || $prev == --log-file ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames
    else
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        compopt -o filenames
    fi
}

complete -F _stepfs stepfs
