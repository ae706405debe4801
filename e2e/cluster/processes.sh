# shellcheck shell=bash
# Sourced: processes that outlive the script that starts them. $S names the directory with their run/ and log/.
#
# A pid file holds "PID STARTTIME": a pid that was taken over by another process after an unclean death has another start
# time, so it is never mistaken for ours. A zombie (PID 1 of a small VM may reap late) counts as dead.

start_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'; }
alive() { local p s; [ -f "$S/run/$1.pid" ] && read -r p s <"$S/run/$1.pid" && [ -n "$s" ] && [ "$(start_of "$p")" = "$s" ]; }
pid() { local p s; read -r p s <"$S/run/$1.pid"; echo "$p"; }
rss() { awk '/VmRSS/{print int($2/1024)" MiB"}' "/proc/$1/status"; }
state_of() { # one line; not 0 if it is down
  if alive "$1"; then echo "$1 up pid $(pid "$1") rss $(rss "$(pid "$1")")"; else echo "$1 down"; return 3; fi
}
spawn() { # NAME CMD...
  local n=$1 p; shift
  alive "$n" && return 0
  mkdir -p "$S/run" "$S/log"
  setsid "$@" </dev/null >>"$S/log/$n.log" 2>&1 &
  p=$!; echo "$p $(start_of $p)" >"$S/run/$n.pid"; disown
}
keep() { # NAME CMD...: as spawn, and what ends is started again
  local n=$1; shift
  # shellcheck disable=SC2016 # for the shell that keeps it
  spawn "$n" bash -c 'trap "kill \$!; wait; exit 0" TERM; while :; do "$@" & wait $!; sleep 1; done' keep "$@"
}
stop() { # NAME [SIGNAL]
  local n=$1
  if alive "$n"; then
    kill "-${2:-TERM}" "$(pid "$n")" 2>/dev/null || true
    for _ in $(seq 100); do alive "$n" || break; sleep 0.05; done
    if alive "$n"; then kill -KILL "$(pid "$n")" 2>/dev/null || true; sleep 0.1; fi
  fi
  rm -f "$S/run/$n.pid"
}
