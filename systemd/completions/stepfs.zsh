#compdef stepfs
# zsh completion for stepfs

_stepfs_mountpoints() {
    local -a places
    places=(${(f)"$(awk '$3 == "fuse.stepfs" { print $2 }' /proc/self/mounts)"})
    compadd -f -- ${(g::)places}
}

_stepfs_options() {
    _values -s , 'mount option' \
        'ro[refuse every write]' \
        'allow_other[let other users in, as far as the modes of the store let them]' \
        'uid[show this owner]:user:_users' \
        'gid[show this group]:group:_groups' \
        'umask[clear these bits in the modes shown]:octal mask:' \
        'memory[the memory of the daemon, or none]:path:_files' \
        'cache[limit of the text kept in memory]:size:' \
        'line_limit[longest line that append takes]:size:' \
        'pending[limit of unfinished lines]:size:' \
        'deadline[seconds that a far store has to answer]:seconds:' \
        'notify[a Redis for hints to other hosts]:URL:' \
        'sync[when what was written is on disk]:when:(close always never)'
}

_stepfs() {
    local context state state_descr line
    local -A opt_args
    _arguments -C \
        '(- *)--version[print the version and exit]' \
        '(- *)'{-h,--help}'[explain]' \
        '1:command:->command' \
        '*::argument:->argument' && return

    case $state in
        command)
            local -a commands=(
                'mount:show a store at a mountpoint'
                'umount:take a mount away'
                'status:what a mount tells of itself'
                'ls:list the sessions of a store'
                'show:read the history of a session on the terminal'
                'search:look for a pattern in all that was said'
                'usage:count the tokens that runs took'
                'new:make a session'
                'append:append messages to a session'
                'follow:print steps as they come'
                'errors:what a mount has refused, and why'
                'check:look for what is wrong in a store'
                'demo:write a sample store'
            )
            _describe command commands
            ;;
        argument)
            case $words[1] in
                mount)
                    _arguments \
                        {-f,--foreground}'[stay, and log to stderr]' \
                        '*'{-o,--options}'[mount options]:options:_stepfs_options' \
                        '--log-format[how it logs]:format:(text json)' \
                        '--log-level[the least that is logged]:level:(debug info notice warning error)' \
                        '--log-file[log to this file]:file:_files' \
                        '1:store:_files -/' \
                        '2:mountpoint:_files -/'
                    ;;
                umount)
                    _arguments {-l,--lazy}'[though it is in use]' '1:mountpoint:_stepfs_mountpoints'
                    ;;
                status)
                    _arguments '--json[as one JSON document]' '1:mountpoint:_stepfs_mountpoints'
                    ;;
                ls)
                    _arguments \
                        '--agent[of this agent alone]:agent:' \
                        '--created-by[begun by this sender alone]:sender:' \
                        '--match[whose name or title fits]:pattern:' \
                        '--since[changed since]:time:' \
                        '--until[changed by then]:time:' \
                        '--sort[by what]:order:(changed created session agent title messages)' \
                        {-r,--reverse}'[the other way round]' \
                        {-n,--first}'[at most so many]:number:' \
                        '--json[one JSON object per line]' \
                        '1:store, mount or session:_files -/'
                    ;;
                show)
                    _arguments '--markdown[as Markdown, not drawn]' \
                        '--json[the lines of history.jsonl]' '1:session:_files -/'
                    ;;
                search)
                    _arguments {-F,--fixed}'[take PATTERN literally]' {-i,--ignore-case}'[ignore case]' \
                        {-l,--sessions}'[only the names of sessions]' \
                        '--role[said by this role]:role:(system user assistant tool)' \
                        '--agent[of this agent alone]:agent:' \
                        '--since[stored since]:time:' '--until[stored by then]:time:' \
                        '--tools[arguments and results of tools too]' \
                        '--json[one JSON object per line]' '1:pattern:' \
                        '2:store, mount or session:_files -/'
                    ;;
                usage)
                    _arguments \
                        '*--by[what is summed by]:key:(session model day)' \
                        '--agent[of this agent alone]:agent:' \
                        '--created-by[begun by this sender alone]:sender:' \
                        '--match[whose name or title fits]:pattern:' \
                        '--model[with this model]:pattern:' \
                        '--since[ended since]:time:' '--until[ended by then]:time:' \
                        '--json[one JSON object per line]' '1:store, mount or session:_files -/'
                    ;;
                new)
                    _arguments '--agent[its agent]:agent:' '--created-by[its sender]:sender:' \
                        '--title[its title]:title:' '--from[copy this session]:session:' \
                        '--at[up to this step of it]:step:' '--json[as a JSON object]' \
                        '1:store or mount:_files -/'
                    ;;
                append)
                    _arguments '--role[who speaks]:role:(system user assistant tool)' \
                        '--json[print as JSON what was stored]' '1:session:_files -/' '*:text:'
                    ;;
                errors)
                    _arguments {-f,--follow}'[go on with what comes]' \
                        {-n,--last}'[only the last so many]:number:' \
                        '--json[the lines of errors.jsonl]' '1:mountpoint:_stepfs_mountpoints'
                    ;;
                follow)
                    _arguments '--from-start[print the history first]' \
                        '--json[one JSON object per line]' '1:session or mount:_files'
                    ;;
                check) _arguments '--repair[move aside what is wrong]' '--peer[try the store against another mount of it]:directory:_files -/' '1:store:_files -/' ;;
                demo) _arguments '1:directory:_files -/' ;;
            esac
            ;;
    esac
}

_stepfs "$@"
