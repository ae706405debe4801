#!/usr/bin/env bash
# scripts_test.sh: what the scripts decide and call, with stand-ins for docker, kind and the kernel's cgroup files. It does
# not show that docker and kind then do what they are told.
# shellcheck disable=SC2016 # what is in single quotes is for the stand-ins
. "$(dirname "$0")/lib.sh"
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
# is WHAT WANTED GOT
is() { [ "$2" = "$3" ] || die "$1: expected
$2
found
$3"; }
stub() { mkdir -p "$T/bin" && printf '#!/bin/sh\n%s\n' "$2" >"$T/bin/$1" && chmod +x "$T/bin/$1"; }
# chosen STATE_DIRECTORY [FUNCTIONS]: what machine.sh decides, with functions of it replaced
chosen() { FINAIFLOW_STATE=$1 PATH=$T/bin:$PATH bash -c '. "$1/machine.sh"; eval "$2"; machine; echo "$CLUSTER"' - "$HERE" "${2:-}" 2>&1; }

unset CLUSTER
stub docker 'exit 1'
stub kind 'echo "kind $*" >>"$CALLS"; [ "$1 $2" != "create cluster" ] || cat >>"$CALLS"'
is "no docker daemon, but a node's rights" local "$(chosen "$T/none" 'may_isolate() { true; }')"
is "nothing of all that" light "$(chosen "$T/none" 'may_isolate() { false; }')"
stub docker 'echo "docker $*" >>"${CALLS:-/dev/null}"'
is "docker and kind" kind "$(chosen "$T/none" 'may_isolate() { true; }')"
is "docker and kind, but said otherwise" local "$(CLUSTER=local chosen "$T/none")"
is "a typo" "error: CLUSTER=lokal: one of local, kind, existing, light" "$(CLUSTER=lokal chosen "$T/none")"
mkdir "$T/state" && echo light >"$T/state/machine"
is "a state directory remembers" light "$(chosen "$T/state")"
is "and refuses another" "error: $T/state is of CLUSTER=light: make down first, or name another FINAIFLOW_STATE" \
  "$(CLUSTER=kind chosen "$T/state")"

# kind: created once with the node port on loopback, given archives, deleted by its name.
stub kubectl 'exit 0'
stub helm 'exit 0'
export CALLS=$T/calls
in_kind() { CLUSTER=kind FINAIFLOW_STATE=$T/kind PATH=$T/bin:$PATH bash -c '. "$1/machine.sh"; machine_begin; shift; "$@"' - "$HERE" "$@"; }
in_kind start >/dev/null
name=$(sed -n 's/^kind create cluster --name \([^ ]*\) .*/\1/p' "$CALLS")
[[ $name == finaiflow-* ]] || die "kind: no name in $(<"$CALLS")"
port=$(<"$T/kind/port")
is "kind create" "docker info
kind get clusters
kind create cluster --name $name --kubeconfig $T/kind/kubeconfig --wait 180s --config -
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraPortMappings: [{containerPort: 30080, hostPort: $port, listenAddress: 127.0.0.1}]" "$(<"$CALLS")"
is "its URL" "http://127.0.0.1:$port" "$(in_kind url)"
: >"$CALLS"
in_kind put some.tar localhost/some:dev
in_kind has localhost/some:dev && die "kind: an image is there that nobody loaded"
in_kind tear_down
is "kind load and delete" "kind load image-archive some.tar --name $name
docker exec $name-control-plane ctr -n k8s.io images list -q name==localhost/some:dev
kind delete cluster --name $name --kubeconfig $T/kind/kubeconfig" "$(<"$CALLS")"
[ ! -e "$T/kind" ] || die "kind: left $(ls -A "$T/kind")"

# existing: what is there is not ours, and what was not answered neither.
in_existing() {
  CLUSTER=existing OPERATOR_IMAGE=a:1 API_IMAGE=a:1 FINAIFLOW_STATE=$T/existing PATH=$T/bin:$PATH \
    bash -c '. "$1/machine.sh"; machine_begin; shift; "$@"' - "$HERE" "$@" 2>&1
}
mkdir "$T/existing"
stub kubectl 'echo namespace/banks'
in_existing ours namespace banks && die "existing: a namespace that was there is ours"
stub kubectl 'exit 1'
is "no answer" "error: the cluster does not say whether there is a namespace banks" "$(in_existing ours namespace banks)"
[ ! -e "$T/existing/ours" ] || die "existing: noted $(<"$T/existing/ours")"
stub kubectl 'exit 0'
in_existing ours namespace banks || die "existing: a namespace that was not there is not ours"
in_existing ours release finaiflow finaiflow-system || die "existing: a release that was not there is not ours"
stub kubectl 'echo it/is-there-now'
in_existing ours namespace banks || die "existing: what was noted is forgotten"
is "noted once" "namespace banks 
release finaiflow finaiflow-system" "$(<"$T/existing/ours")"

# cgroups: files stand in for the kernel's.
in_cgroups() { CGROUPS=$T/$1 bash -euo pipefail -c '. "$1/cgroups.sh"; shift; "$@"' - "$HERE" "${@:2}"; }
mkdir -p "$T"/v1/{cpu,memory,cpuset,notes}
touch "$T"/v1/{cpu,memory,cpuset}/cgroup.procs
ln -s cpu "$T/v1/cpu,cpuacct"
echo 0-1 >"$T/v1/cpuset/cpuset.cpus" && echo 0 >"$T/v1/cpuset/cpuset.mems"
is "v1: a hierarchy for each controller, links left out" "$T/v1/cpu $T/v1/cpuset $T/v1/memory" "$(in_cgroups v1 cgroups | paste -sd ' ')"
in_cgroups v1 cgroup_make node
is "v1: cpuset is handed on" "0-1 0" "$(cat "$T"/v1/cpuset/node/cpuset.{cpus,mems} | paste -sd ' ')"
rm "$T"/v1/cpuset/node/*
in_cgroups v1 cgroup_remove node
is "v1: nothing is left" "" "$(find "$T/v1" -name node)"
mkdir -p "$T/v2/node"
for d in v2 v2/node; do
  echo "cpuset cpu io memory pids" >"$T/$d/cgroup.controllers"
  : >"$T/$d/cgroup.procs"
  echo "cpuset cpu io memory pids" >"$T/$d/cgroup.subtree_control"
done
is "v2: the one hierarchy" "$T/v2" "$(in_cgroups v2 cgroups)"
echo "cpu io" >"$T/v2/cgroup.controllers"
: >"$T/v2/cgroup.subtree_control"
is "v2: a controller that is missing is named" "cgroup v2 without the controller cpu in $T/v2: a node needs it" \
  "$(in_cgroups v2 cgroup_make node 2>&1 | tail -n 1)"
echo "the scripts' decisions are as expected"
