# fish completion for stepfs

function __stepfs_mountpoints
    string match -r '^\S+ \S+ fuse\.stepfs' </proc/self/mounts | string replace -r '^\S+ (\S+) .*' '$1' | string unescape
end

function __stepfs_options
    set -l given (string replace -r '[^,]*$' '' -- (commandline -ct))
    printf '%s\t%s\n' \
        $given"ro" 'refuse every write' \
        $given"allow_other" 'let other users in, as far as the modes of the store let them' \
        $given"uid=" 'show this owner' \
        $given"gid=" 'show this group' \
        $given"umask=" 'clear these bits in the modes shown' \
        $given"memory=" 'the memory of the daemon, or none' \
        $given"cache=" 'limit of the text kept in memory' \
        $given"line_limit=" 'longest line that append takes' \
        $given"pending=" 'limit of unfinished lines' \
        $given"deadline=" 'seconds that a far store has to answer' \
        $given"notify=" 'a Redis for hints to other hosts' \
        $given"sync=close" 'on disk when close returns' \
        $given"sync=always" 'on disk when write returns' \
        $given"sync=never" 'on disk when the kernel sees fit'
end

complete -c stepfs -f
complete -c stepfs -n __fish_use_subcommand -l version -d 'print the version and exit'
complete -c stepfs -s h -l help -d explain
complete -c stepfs -n __fish_use_subcommand -a mount -d 'show a store at a mountpoint'
complete -c stepfs -n __fish_use_subcommand -a umount -d 'take a mount away'
complete -c stepfs -n __fish_use_subcommand -a status -d 'what a mount tells of itself'
complete -c stepfs -n __fish_use_subcommand -a ls -d 'list the sessions of a store'
complete -c stepfs -n __fish_use_subcommand -a show -d "read a session's history on the terminal"
complete -c stepfs -n __fish_use_subcommand -a search -d 'look for a pattern in all that was said'
complete -c stepfs -n __fish_use_subcommand -a usage -d 'count the tokens that runs took'
complete -c stepfs -n __fish_use_subcommand -a new -d 'make a session'
complete -c stepfs -n __fish_use_subcommand -a append -d 'append messages to a session'
complete -c stepfs -n __fish_use_subcommand -a errors -d 'what a mount has refused, and why'
complete -c stepfs -n __fish_use_subcommand -a follow -d 'print steps as they come'
complete -c stepfs -n __fish_use_subcommand -a check -d 'look for what is wrong in a store'
complete -c stepfs -n __fish_use_subcommand -a demo -d 'write a sample store'

complete -c stepfs -n '__fish_seen_subcommand_from mount' -s f -l foreground -d 'stay, and log to stderr'
complete -c stepfs -n '__fish_seen_subcommand_from mount' -s o -l options -x -a '(__stepfs_options)' -d 'mount options'
complete -c stepfs -n '__fish_seen_subcommand_from mount' -l log-format -x -a 'text json'
complete -c stepfs -n '__fish_seen_subcommand_from mount' -l log-level -x -a 'debug info notice warning error'
complete -c stepfs -n '__fish_seen_subcommand_from mount' -l log-file -r -F -d 'log to this file'
complete -c stepfs -n '__fish_seen_subcommand_from umount' -s l -l lazy -d 'though it is in use'
complete -c stepfs -n '__fish_seen_subcommand_from umount status errors' -a '(__stepfs_mountpoints)'
complete -c stepfs -n '__fish_seen_subcommand_from status' -l json -d 'as one JSON document'
complete -c stepfs -n '__fish_seen_subcommand_from ls show search usage new append follow errors' -l json -d 'one JSON object per line'
complete -c stepfs -n '__fish_seen_subcommand_from ls search usage new' -l agent -x -d 'the agent'
complete -c stepfs -n '__fish_seen_subcommand_from ls usage new' -l created-by -x -d 'the sender'
complete -c stepfs -n '__fish_seen_subcommand_from new' -l title -x -d 'its title'
complete -c stepfs -n '__fish_seen_subcommand_from new' -l from -x -d 'copy this session'
complete -c stepfs -n '__fish_seen_subcommand_from new' -l at -x -d 'up to this step of it'
complete -c stepfs -n '__fish_seen_subcommand_from ls usage' -l match -x -d 'whose name or title fits'
complete -c stepfs -n '__fish_seen_subcommand_from ls search usage' -l since -x -d 'changed, stored or ended since'
complete -c stepfs -n '__fish_seen_subcommand_from ls search usage' -l until -x -d 'changed, stored or ended by then'
complete -c stepfs -n '__fish_seen_subcommand_from ls' -l sort -x -a 'changed created session agent title messages'
complete -c stepfs -n '__fish_seen_subcommand_from ls' -s r -l reverse -d 'the other way round'
complete -c stepfs -n '__fish_seen_subcommand_from ls' -s n -l first -x -d 'at most so many'
complete -c stepfs -n '__fish_seen_subcommand_from search' -s F -l fixed -d 'take PATTERN literally'
complete -c stepfs -n '__fish_seen_subcommand_from search' -s i -l ignore-case -d 'ignore case'
complete -c stepfs -n '__fish_seen_subcommand_from search' -s l -l sessions -d 'only the names of sessions'
complete -c stepfs -n '__fish_seen_subcommand_from search' -l tools -d 'arguments and results of tools too'
complete -c stepfs -n '__fish_seen_subcommand_from usage' -l by -x -a 'session model day' -d 'what is summed by'
complete -c stepfs -n '__fish_seen_subcommand_from usage' -l model -x -d 'with this model'
complete -c stepfs -n '__fish_seen_subcommand_from show' -l markdown -d 'as Markdown, not drawn'
complete -c stepfs -n '__fish_seen_subcommand_from append search' -l role -x -a 'system user assistant tool'
complete -c stepfs -n '__fish_seen_subcommand_from errors' -s f -l follow -d 'go on with what comes'
complete -c stepfs -n '__fish_seen_subcommand_from errors' -s n -l last -x -d 'only the last so many'
complete -c stepfs -n '__fish_seen_subcommand_from ls show search usage new append' -a '(__fish_complete_directories)'
complete -c stepfs -n '__fish_seen_subcommand_from follow' -l from-start -d 'print the history first'
complete -c stepfs -n '__fish_seen_subcommand_from follow' -F
complete -c stepfs -n '__fish_seen_subcommand_from check' -l repair -d 'move aside what is wrong'
complete -c stepfs -n '__fish_seen_subcommand_from check' -l peer -r -d 'try the store against another mount of it'
complete -c stepfs -n '__fish_seen_subcommand_from mount check demo' -a '(__fish_complete_directories)'
