#!/usr/bin/env bash
# lc.sh up|down|purge|status|restart COMPONENT|load ARCHIVE|has IMAGE|kubectl ..|helm ..|enter CMD   - a local Kubernetes cluster, no docker.
#
#   LC_STATE   state directory: everything the cluster writes is under it    (./.lc)
#   LC_BIN     the multi-call binary                                        (as binary.sh prints it)
#   LC_NAME    short name: interfaces, cgroups                              (lc)
#   LC_INDEX   0..99, different for clusters that run at the same time      (0)
#   LC_PORT    first of 6 host ports (apiserver, etcd, etcd peer, kcm, sched, -) (16443+10*index)
#   LC_LIGHT=1 only etcd + kube-apiserver + kube-controller-manager: no root needed, all on loopback
#
# The control plane runs on the host. The node (containerd, kubelet, kube-proxy, coredns, local-path)
# runs in its own mount, PID, network, UTS and IPC namespaces under one init: its bridges, nftables
# tables, mounts and containers are not visible on the host, and end when that init is killed.
#
# For development and tests only: etcd listens on loopback without authentication and does not sync to disk, so any
# user of this machine can read every Secret of the cluster, and a power cut may cost its state.
set -euo pipefail
S=${LC_STATE:-$PWD/.lc}; mkdir -p "$S"; S=$(cd "$S" && pwd)
B=$(readlink -f "${LC_BIN:?names the cluster binary: see binary.sh}")
NAME=${LC_NAME:-lc}; I=${LC_INDEX:-0}; LIGHT=${LC_LIGHT:-}
P=${LC_PORT:-$((16443 + 10 * I))}
API=$P ETCD=$((P + 1)) PEER=$((P + 2)) KCM=$((P + 3)) SCHED=$((P + 4))
HOSTIP=10.213.$I.1 NODEIP=10.213.$I.2 IF=$NAME$I
PODS=10.$((100 + I)).0.0/16 PODS24=10.$((100 + I)).0.0/24
SVCS=10.$((200 + I % 10)).$((16 * (I / 10))).0/20; SVC1=${SVCS%.0/20}.1 DNS=${SVCS%.0/20}.10
[ -n "$LIGHT" ] && HOSTIP=127.0.0.1
NODE=node1
log() { echo "$(date +%T.%2N) $*"; }
# The kubelet and containerd make UNIX sockets under the state directory, and their names end at 107 characters.
[ ${#S} -le 70 ] || { echo "the state directory's name is too long (70 characters at most): $S" >&2; exit 1; }

. "$(dirname "$0")/processes.sh"
CGROUPS=/sys/fs/cgroup
. "$(dirname "$0")/cgroups.sh"

wait_for() { # SECONDS PROCESS WHAT CMD...
  local t=$(($1 * 10)) n=$2 w=$3; shift 3
  until "$@" >/dev/null 2>&1; do
    [ -n "$n" ] && ! alive "$n" && { echo "$n died:"; tail -5 "$S/log/$n.log"; return 1; }
    [ $((t--)) -gt 0 ] || { echo "timed out: $w"; return 1; }
    sleep 0.1
  done
  log "$w"
}
K() { "$B" kubectl --kubeconfig "$S/admin.kubeconfig" "$@"; }
api_ready() { curl -sf --max-time 2 --cacert "$S/pki/ca.crt" --cert "$S/pki/admin.crt" --key "$S/pki/admin.key" "https://$HOSTIP:$API/readyz"; }

# --- certificates and config -----------------------------------------------------------------
pki() {
  local d=$S/pki stamp="v2 $HOSTIP $NODEIP $SVC1"
  [ "$(cat "$d/stamp" 2>/dev/null)" = "$stamp" ] && openssl x509 -in "$d/apiserver.crt" -checkend 86400 -noout >/dev/null && return 0
  rm -rf "$d"; mkdir -p "$d"; chmod 700 "$d"
  ec() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
  for ca in ca front-ca; do
    ec "$d/$ca.key"; openssl req -x509 -new -key "$d/$ca.key" -sha256 -days 3650 -subj "/CN=$NAME-$ca" -out "$d/$ca.crt" \
      -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign,digitalSignature' 2>/dev/null
  done
  cert() { # NAME SUBJECT SAN CA
    ec "$d/$1.key"
    openssl req -new -key "$d/$1.key" -subj "$2" 2>/dev/null | openssl x509 -req -CA "$d/${4:-ca}.crt" -CAkey "$d/${4:-ca}.key" \
      -CAcreateserial -days 3650 -sha256 -out "$d/$1.crt" -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") 2>/dev/null
  }
  cert apiserver /CN=kube-apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$SVC1,IP:$HOSTIP"
  cert admin /O=system:masters/CN=admin DNS:admin
  cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client DNS:kubelet-client
  cert kcm /O=system:masters/CN=system:kube-controller-manager DNS:localhost,IP:127.0.0.1
  cert sched /CN=system:kube-scheduler DNS:localhost,IP:127.0.0.1
  cert node "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:$NODEIP"
  cert proxy /CN=system:kube-proxy DNS:proxy
  cert coredns /CN=system:coredns DNS:coredns
  cert local-path /CN=system:local-path DNS:local-path
  cert front /CN=front-proxy DNS:front-proxy front-ca
  ec "$d/sa.key"; openssl ec -in "$d/sa.key" -pubout -out "$d/sa.pub" 2>/dev/null
  echo "$stamp" >"$d/stamp"
}
kubeconfig() { # FILE CERT   (data inline: the file can be copied anywhere)
  local d=$S/pki; (umask 077; cat >"$1" <<Y
apiVersion: v1
kind: Config
clusters: [{name: $NAME$I, cluster: {server: "https://$HOSTIP:$API", certificate-authority-data: $(base64 -w0 "$d/ca.crt")}}]
users: [{name: $2, user: {client-certificate-data: $(base64 -w0 "$d/$2.crt"), client-key-data: $(base64 -w0 "$d/$2.key")}}]
contexts: [{name: $NAME$I, context: {cluster: $NAME$I, user: $2}}]
current-context: $NAME$I
Y
  )
}

# --- control plane ---------------------------------------------------------------------------
control_plane() {
  local d=$S/pki
  spawn etcd "$B" etcd --name "$NAME" --data-dir "$S/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
    --listen-peer-urls "http://127.0.0.1:$PEER" --initial-advertise-peer-urls "http://127.0.0.1:$PEER" \
    --initial-cluster "$NAME=http://127.0.0.1:$PEER"
  spawn kube-apiserver "$B" kube-apiserver --etcd-servers "http://127.0.0.1:$ETCD" \
    --bind-address "$HOSTIP" --secure-port "$API" --advertise-address "$([ -n "$LIGHT" ] && echo 192.0.2.1 || echo "$HOSTIP")" \
    --tls-cert-file "$d/apiserver.crt" --tls-private-key-file "$d/apiserver.key" --client-ca-file "$d/ca.crt" \
    --requestheader-client-ca-file "$d/front-ca.crt" --requestheader-allowed-names front-proxy \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file "$d/front.crt" --proxy-client-key-file "$d/front.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$d/sa.pub" --service-account-signing-key-file "$d/sa.key" \
    --authorization-mode Node,RBAC --anonymous-auth=false --enable-admission-plugins NodeRestriction \
    --service-cluster-ip-range "$SVCS" --service-node-port-range 30000-32767 --allow-privileged=true \
    --kubelet-client-certificate "$d/kubelet-client.crt" --kubelet-client-key "$d/kubelet-client.key" \
    --kubelet-certificate-authority "$d/ca.crt" --kubelet-preferred-address-types InternalIP \
    --endpoint-reconciler-type "$([ -n "$LIGHT" ] && echo none || echo lease)" --enable-aggregator-routing=true \
    --event-ttl 1h --shutdown-delay-duration 0s --cert-dir "$S/run" --profiling=false
  wait_for 60 kube-apiserver "kube-apiserver ready" api_ready
  kubeconfig "$S/kcm.kubeconfig" kcm
  # /readyz waits for the RBAC bootstrap hook, so the controller manager finds its roles.
  spawn kube-controller-manager "$B" kube-controller-manager --kubeconfig "$S/kcm.kubeconfig" \
    --authentication-kubeconfig "$S/kcm.kubeconfig" --authorization-kubeconfig "$S/kcm.kubeconfig" \
    --bind-address 127.0.0.1 --secure-port "$KCM" --cert-dir "$S/run" --requestheader-client-ca-file "$d/front-ca.crt" --client-ca-file "$d/ca.crt" \
    --service-account-private-key-file "$d/sa.key" --root-ca-file "$d/ca.crt" --kube-api-qps 200 --kube-api-burst 400 \
    --cluster-signing-cert-file "$d/ca.crt" --cluster-signing-key-file "$d/ca.key" \
    --allocate-node-cidrs --cluster-cidr "$PODS" --service-cluster-ip-range "$SVCS" --leader-elect=false \
    --node-monitor-grace-period 20s --profiling=false
  if [ -z "$LIGHT" ]; then
    kubeconfig "$S/sched.kubeconfig" sched
    spawn kube-scheduler "$B" kube-scheduler --kubeconfig "$S/sched.kubeconfig" --authentication-kubeconfig "$S/sched.kubeconfig" \
      --authorization-kubeconfig "$S/sched.kubeconfig" --bind-address 127.0.0.1 --secure-port "$SCHED" --cert-dir "$S/run" \
      --requestheader-client-ca-file "$d/front-ca.crt" --client-ca-file "$d/ca.crt" --leader-elect=false --profiling=false
    wait_for 30 kube-scheduler "kube-scheduler healthy" curl -skf "https://127.0.0.1:$SCHED/healthz"
  fi
  wait_for 30 kube-controller-manager "kube-controller-manager healthy" curl -skf "https://127.0.0.1:$KCM/healthz"
  wait_for 30 '' "default service account" K -n default get serviceaccount default
}

# --- node ------------------------------------------------------------------------------------
node_files() {
  local e=$S/etc; mkdir -p "$e/cni" "$S/volumes" "$S/kubelet" "$S/containerd" "$S/pods-log"
  for n in node proxy coredns local-path; do kubeconfig "$e/$n.kubeconfig" $n; done
  cat >"$e/containerd.toml" <<Y
version = 2
root = "$S/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$S/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "localhost/pause:1"
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$e/cni"
Y
  cat >"$e/cni/10-bridge.conflist" <<Y
{"cniVersion":"1.0.0","name":"bridge","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{"subnet":"$PODS24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
Y
  cat >"$e/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODEIP
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $S/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $S/pki/node.crt
tlsPrivateKeyFile: $S/pki/node.key
containerRuntimeEndpoint: unix://$S/run/containerd.sock
clusterDNS: ["$DNS"]
clusterDomain: cluster.local
resolvConf: $e/resolv.conf
podLogsDir: $S/pods-log
cgroupDriver: cgroupfs
cgroupRoot: /$NAME$I
cgroupsPerQOS: true
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
evictionHard: {}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
maxPods: 110
Y
  cat >"$e/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $PODS
hostnameOverride: $NODE
clientConnection: {kubeconfig: $e/proxy.kubeconfig}
conntrack: {maxPerCore: 0}
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
Y
  cat >"$e/Corefile" <<Y
.:53 {
    bind $NODEIP
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $e/coredns.kubeconfig
        pods insecure
        ttl 5
    }
    cache 5
}
Y
  # Names outside the cluster: refused at once (no forward), as pods have no way out of the node's namespace.
  # With a forward to a server that cannot be reached each such lookup costs a pod many seconds.
  : >"$e/resolv.conf"
  if [ -n "${LC_UPSTREAM:-}" ]; then sed -i "s|^    cache 5$|    forward . $LC_UPSTREAM\n    cache 5|" "$e/Corefile"; fi
  # PID 1 of the node. It restarts what dies, and when it is killed the kernel ends everything in it.
  cat >"$e/init.sh" <<Y
#!/usr/bin/env bash
mount --make-rshared /
hostname $NODE
ip link set lo up
for f in ip_forward conf.all.route_localnet; do echo 1 >/proc/sys/net/ipv4/\${f//.//}; done
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/containerd /run/lock
for d in /var/lib/cni /var/log/containers; do mkdir -p \$d && mount -t tmpfs tmpfs \$d; done
for i in \$(seq 100); do ip addr show dev $IF >/dev/null 2>&1 && break; sleep 0.05; done
keep() { local n=\$1; shift; while :; do "\$@" >>"$S/log/\$n.log" 2>&1 </dev/null & echo \$! >"$S/run/node-\$n"; wait \$!; echo "[\$n ended: \$?]" >>"$S/log/\$n.log"; sleep 1; done; }
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
keep containerd /usr/bin/containerd --config "$e/containerd.toml" &
for i in \$(seq 100); do ctr -a "$S/run/containerd.sock" version >/dev/null 2>&1 && break; sleep 0.05; done
[ -f "$S/pause.tar" ] && ctr -a "$S/run/containerd.sock" -n k8s.io images import "$S/pause.tar" >>"$S/log/containerd.log" 2>&1
keep kubelet "$B" kubelet --config "$e/kubelet.yaml" --kubeconfig "$e/node.kubeconfig" --root-dir "$S/kubelet" --hostname-override $NODE --node-ip $NODEIP --cert-dir "$S/run" &
keep kube-proxy "$B" kube-proxy --config "$e/proxy.yaml" &
keep coredns "$B" coredns -conf "$e/Corefile" &
keep local-path "$B" local-path --kubeconfig "$e/local-path.kubeconfig" --root "$S/volumes" --node $NODE &
wait
Y
  cat >"$e/addons.yaml" <<Y
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local-path, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: local-path
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {clusterIP: $DNS, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-node, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: ["$NODEIP"], conditions: {ready: true}}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: system:coredns}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:local-path}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:persistent-volume-provisioner}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: system:local-path}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:local-path-nodes}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns-nodes-read}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: system:local-path}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns-nodes-read}
rules: [{apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}]
Y
}
link() {
  # The host end; the other end is moved into the node. Made before the apiserver binds to its address.
  ip link show "$IF" >/dev/null 2>&1 && return 0
  ip link add "$IF" type veth peer name "${IF}n"
  ip addr add "$HOSTIP/30" dev "$IF"; ip link set "$IF" up
}
node_init() { pgrep -P "$(pid node)" 2>/dev/null | head -1; } # the init, as the host numbers it
node() {
  if ! alive node; then
    node_clean
    cgroup_make "$NAME$I"
    link
    stale
    spawn node unshare --mount --pid --net --uts --ipc --fork --kill-child --mount-proc --propagation private bash "$S/etc/init.sh"
    local p=; for _ in $(seq 100); do p=$(node_init) && [ -n "$p" ] && break; sleep 0.02; done
    for _ in $(seq 100); do [ "$(readlink "/proc/$p/ns/net")" != "$(readlink /proc/self/ns/net)" ] && break; sleep 0.02; done
    ip link set "${IF}n" netns "$p"
    nsenter -t "$p" -n sh -c "ip link set ${IF}n name $IF; ip addr add $NODEIP/30 dev $IF; ip link set $IF up; ip route add default via $HOSTIP"
    # host -> pods and services (webhooks, tests); gone with the interface
    ip route replace "$PODS" via "$NODEIP"; ip route replace "$SVCS" via "$NODEIP"
  fi
  K apply -f "$S/etc/addons.yaml" >/dev/null
  wait_for 60 node "node ready" sh -c "'$B' kubectl --kubeconfig '$S/admin.kubeconfig' get node $NODE -o 'jsonpath={.status.conditions[?(@.type==\"Ready\")].status}' | grep True"
}
stale() {
  # etcd still says "Ready" of the node and the pods of the previous life; the containers are gone. Take it
  # back, or every wait below (and `rollout status`, and endpoints) believes the old statuses.
  K get node $NODE >/dev/null 2>&1 || return 0
  K patch node $NODE --subresource=status -p '{"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeRestart"}]}}' >/dev/null
  K get pods -A --field-selector=status.phase=Running -o 'jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}' | while read -r ns p; do
    K -n "$ns" patch pod "$p" --subresource=status -p '{"status":{"conditions":[{"type":"Ready","status":"False"},{"type":"ContainersReady","status":"False"}]}}' </dev/null >/dev/null || true
  done
}
stop_node() {
  local init ns q busy
  init=$(node_init) ns=
  [ -z "$init" ] || ns=$(readlink "/proc/$init/ns/pid" | tr -dc 0-9)
  stop node KILL # to unshare; it ends the init (--kill-child), and with it every process and mount of the node
  # Not at once: a kubelet that still runs would make its cgroups again behind node_clean. Zombies, and the init that
  # waits for them to be reaped, can do no harm.
  for _ in $(seq 100); do
    busy=
    for q in $([ -z "$ns" ] || find /proc/[0-9]*/ns/pid -lname "*$ns*" 2>/dev/null | cut -d/ -f3); do
      if [ "$q" != "$init" ] && [ -n "$(start_of "$q")" ]; then busy=1; fi
    done
    [ -n "$busy" ] || break
    sleep 0.05
  done
}
node_clean() { # what a node leaves outside its namespaces: the link, cgroups, (nothing else)
  ip link del "$IF" 2>/dev/null || true
  ip link del "${IF}n" 2>/dev/null || true
  cgroup_remove "$NAME$I"
}

# --- commands --------------------------------------------------------------------------------
up() {
  mkdir -p "$S/run" "$S/log"
  pki; kubeconfig "$S/admin.kubeconfig" admin
  if [ -z "$LIGHT" ]; then
    if alive node && ! [ "$(node_init)" ]; then stop_node; fi
    alive node || { node_clean; link; node_files; } # kube-proxy ends when its files change
  fi
  control_plane
  [ -n "$LIGHT" ] || node
}
down() {
  if [ -z "$LIGHT" ]; then
    alive node && stop_node
    rm -f "$S"/run/node-* "$S/run/containerd.sock"*
    node_clean
  fi
  # The apiserver keeps nothing of its own: kill it, rather than wait for its open watches. etcd is asked.
  for n in kube-scheduler kube-controller-manager kube-apiserver; do stop $n KILL; done
  stop etcd
}
case ${1:-} in
up) up ;;
down) down ;;
purge) down; rm -rf "$S" ;;
restart) if [ "$2" = node ]; then stop_node; node_clean; else stop "$2"; fi; up ;;
load) ctr -a "$S/run/containerd.sock" -n k8s.io images import "$2" ;;
has) [ -n "$(ctr -a "$S/run/containerd.sock" -n k8s.io images list -q "name==$2")" ] ;;
kubectl) shift; K "$@" ;;
helm) shift; KUBECONFIG=$S/admin.kubeconfig "$B" helm "$@" ;;
enter) shift; nsenter -t "$(node_init)" -a "$@" ;;
status)
  rc=0
  for n in etcd kube-apiserver kube-controller-manager $([ -n "$LIGHT" ] || echo kube-scheduler node); do
    state_of "$n" || rc=3
  done
  if [ -z "$LIGHT" ] && alive node; then
    for q in $(pgrep -P "$(pgrep -P "$(node_init)" -d,)"); do
      n=$(tr '\0' ' ' <"/proc/$q/cmdline"); n=${n#"$B "}; n=${n%% *}
      case $n in *containerd | kubelet | kube-proxy | coredns | local-path) echo "  $n pid $q rss $(rss "$q")" ;; esac
    done
  fi
  if api_ready >/dev/null; then echo "api https://$HOSTIP:$API ready"; else echo "api not ready"; rc=3; fi
  exit $rc ;;
*) sed -n '2,10p' "$0"; exit 2 ;;
esac
