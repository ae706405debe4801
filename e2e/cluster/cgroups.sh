# shellcheck shell=bash
# Sourced: one cgroup for all pods of a node, under cgroup v1 (a hierarchy for each controller) and v2 (one for all).
# $CGROUPS is where they are mounted.

unified() { [ -f "$CGROUPS/cgroup.controllers" ]; }
cgroups() { # the hierarchies a group has to be made in
  local c
  if unified; then echo "$CGROUPS"; return; fi
  for c in "$CGROUPS"/*/; do
    c=${c%/}
    if [ -f "$c/cgroup.procs" ] && ! [ -L "$c" ]; then echo "$c"; fi
  done
}
cgroup_make() { # NAME
  local c f
  for c in $(cgroups); do mkdir -p "$c/$1"; done
  if unified; then delegate "$CGROUPS" && delegate "$CGROUPS/$1"; return; fi
  # v1: cpuset is not inherited, and an empty one takes no task
  if [ -d "$CGROUPS/cpuset/$1" ]; then
    for f in cpuset.cpus cpuset.mems; do cat "$CGROUPS/cpuset/$f" >"$CGROUPS/cpuset/$1/$f"; done
  fi
}
delegate() { # GROUP: v2 gives a controller to the groups below only where the group says so
  local c p
  # A group that does so may hold no process of its own, but for the machine's root, which has no type. In a container
  # our root is an ordinary group, and this shell is in it: what is in it moves one down.
  for _ in $([ -f "$1/cgroup.type" ] && seq 20); do
    [ -n "$(<"$1/cgroup.procs")" ] || break
    mkdir -p "$1/processes"
    for p in $(<"$1/cgroup.procs"); do { echo "$p" >"$1/processes/cgroup.procs"; } 2>/dev/null || true; done # some end meanwhile
  done
  for c in $(<"$1/cgroup.controllers"); do
    { echo "+$c" >"$1/cgroup.subtree_control"; } 2>/dev/null || echo "cgroup controller $c is not to be had in $1" >&2
  done
  for c in cpu cpuset memory pids; do
    grep -qw "$c" "$1/cgroup.subtree_control" || { echo "cgroup v2 without the controller $c in $1: a node needs it" >&2; return 1; }
  done
}
cgroup_remove() { # NAME: all hierarchies at once; tasks that are still dying keep theirs busy for a moment, so try again
  local c pids=()
  for c in $(cgroups); do
    ( for _ in $(seq 25); do
        [ -d "$c/$1" ] || exit 0
        find "$c/$1" -depth -type d -exec rmdir {} + 2>/dev/null; sleep 0.1
      done; [ ! -d "$c/$1" ] || echo "left: $c/$1" ) & pids+=($!)
  done
  [ ${#pids[@]} -eq 0 ] || wait "${pids[@]}" || true
}
