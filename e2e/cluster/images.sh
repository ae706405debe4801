#!/usr/bin/env bash
# images.sh base                     what the cluster needs beside our programs, into the cache: pause.tar postgres.tar redis.tar base.layer
# images.sh program NAME:TAG FILE DIR  the base with FILE as /usr/local/bin/NAME, its entry point: DIR/NAME.tar
#
# Images without a registry or a container engine: a layer is a tar of files from named Debian packages, an image an
# archive as `docker save` writes it. The same files give the same image, byte for byte.
. "$(dirname "$0")/lib.sh"
BASE=$(images_path)

RUNTIME=(base-files libc6 libgcc-s1 ca-certificates tzdata)
SHELL_TOOLS=(dash coreutils findutils grep sed gzip libacl1 libattr1 libselinux1 libpcre2-8-0 libgmp10)
POSTGRES=(postgresql-15 postgresql-client-15 libpq5 libssl3 libreadline8 libtinfo6 libedit2 libbsd0 libmd0 libxml2 libicu72
  libxslt1.1 libpam0g libaudit1 libcap-ng0 libuuid1 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 libstdc++6 zlib1g
  liblz4-1 libzstd1 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 libldap-2.5-0
  libsasl2-2 libgnutls30 libp11-kit0 libidn2-0 libunistring2 libtasn1-6 libhogweed6 libnettle8 libffi8)
REDIS=(redis-server redis-tools libatomic1 libhiredis0.14 libjemalloc2 liblua5.1-0 lua-bitop lua-cjson liblzf1 libssl3 libsystemd0 libcap2
  libgcrypt20 libgpg-error0 liblzma5 liblz4-1 libzstd1 libstdc++6)

layer() { tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$1" -cf "$2" .; }

# archive FILE NAME:TAG CONFIG LAYERS...   CONFIG is the image configuration's "config" object.
archive() {
  local file=$1 ref=localhost/$2 config=$3 l id ids=() t
  shift 3
  t=$(mktemp -d -p "$OUT")
  for l in "$@"; do
    id=$(sha256sum <"$l" | cut -d' ' -f1)
    ids+=("$id")
    ln -f "$l" "$t/$id.tar" 2>/dev/null || cp "$l" "$t/$id.tar"
  done
  jq -n --arg arch "$(dpkg --print-architecture)" --argjson config "$config" \
    '{architecture: $arch, os: "linux", created: "1970-01-01T00:00:00Z", config: $config,
      rootfs: {type: "layers", diff_ids: ($ARGS.positional | map("sha256:" + .))}}' --args "${ids[@]}" >"$t/config.json"
  jq -n --arg ref "$ref" '[{Config: "config.json", RepoTags: [$ref], Layers: ($ARGS.positional | map(. + ".tar"))}]' \
    --args "${ids[@]}" >"$t/manifest.json"
  layer "$t" "$file.new"
  mv "$file.new" "$file"
  rm -rf "$t"
}

# unpack DIR PACKAGES...: these packages and no others, without their maintainer scripts, manuals and translations.
unpack() {
  local d=$1 debs f l
  shift
  mkdir -p "$d"/usr/{bin,sbin,lib,lib64} "$d/etc" "$d/tmp"
  chmod 1777 "$d/tmp"
  for l in bin sbin lib lib64; do ln -s "usr/$l" "$d/$l"; done
  debs=$(mktemp -d -p "$OUT")
  (cd "$debs" && retry download "$@")
  for f in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$f" | tar -x -C "$d" --keep-directory-symlink --exclude='./usr/share/doc*' --exclude='./usr/share/man*' \
      --exclude='./usr/share/locale*' --exclude='./usr/share/lintian*' --exclude='./usr/share/info*'
  done
  rm -rf "$debs" "$d"/usr/share/{gcc,gdb} "$d"/usr/lib/*-linux-gnu/gconv
  mkdir -p "$d/etc/ssl/certs"
  find "$d/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs cat >"$d/etc/ssl/certs/ca-certificates.crt"
}
download() { # a new machine has no package lists yet
  local log
  log=$(apt-get -qq -o APT::Sandbox::User=root download "$@" 2>&1) || { echo "$log" >&2; apt-get -qq update; return 1; }
}
users() { # DIR NAME ID
  printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nobody:x:65534:65534:nobody:/:/sbin/nologin "$2:x:$3:$3:$2:/:/sbin/nologin" >"$1/etc/passwd"
  printf '%s\n' root:x:0: nogroup:x:65534: "$2:x:$3:" >"$1/etc/group"
  printf '%s\n' 'hosts: files dns' 'passwd: files' 'group: files' >"$1/etc/nsswitch.conf"
}
# complete DIR: the lists above are kept by hand, so prove that no program or library lacks a library.
complete() {
  local lacks
  lacks=$({ find "$1"/usr/{bin,sbin,lib} -type f \( -perm -100 -o -name '*.so*' \) -exec objdump -p {} + 2>/dev/null || true; } |
    awk '/NEEDED/{print $2}' | sort -u | while read -r l; do
      [ -n "$(find "$1/usr/lib" "$1/usr/lib64" -name "$l" -print -quit)" ] || echo "$l"
    done)
  [ -z "$lacks" ] || die "libraries missing in the image: $lacks"
}

base() {
  local d=$OUT/work
  [ ! -f "$OUT/base.layer" ] || return 0
  rm -rf "$d" && mkdir "$d"
  CGO_ENABLED=0 go build -C "$HERE/pause" -trimpath -ldflags '-s -w' -o "$d/pause/pause" main.go
  layer "$d/pause" "$d/pause.layer"
  archive "$OUT/pause.tar" pause:1 '{"User": "65535:65535", "Entrypoint": ["/pause"]}' "$d/pause.layer"

  unpack "$d/base" "${RUNTIME[@]}"
  users "$d/base" nonroot 65532
  complete "$d/base"

  unpack "$d/postgres" "${RUNTIME[@]}" "${SHELL_TOOLS[@]}" "${POSTGRES[@]}"
  users "$d/postgres" postgres 999
  ln -sf dash "$d/postgres/usr/bin/sh"
  # PostgreSQL runs without its LLVM, which would be as large again as all the rest.
  rm -rf "$d"/postgres/usr/lib/postgresql/15/lib/{bitcode,llvmjit*}
  mkdir -p "$d/postgres/var/run/postgresql" && chmod 1777 "$d/postgres/var/run/postgresql"
  complete "$d/postgres"
  layer "$d/postgres" "$d/postgres.layer"
  archive "$OUT/postgres.tar" postgres:dev \
    '{"User": "999:999", "Env": ["PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin"]}' "$d/postgres.layer"

  unpack "$d/redis" "${RUNTIME[@]}" "${SHELL_TOOLS[@]}" "${REDIS[@]}"
  users "$d/redis" nonroot 65532
  ln -sf dash "$d/redis/usr/bin/sh"
  complete "$d/redis"
  layer "$d/redis" "$d/redis.layer"
  archive "$OUT/redis.tar" redis:dev '{"User": "65532:65532", "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}' "$d/redis.layer"

  layer "$d/base" "$OUT/base.layer" # last: its being there says that all of it is
  rm -rf "$d"
}
program() { # NAME:TAG FILE
  local name=${1%%:*} d
  d=$(mktemp -d -p "$OUT")
  mkdir -p "$d/root/usr/local/bin"
  strip -o "$d/root/usr/local/bin/$name" "$2"
  layer "$d/root" "$d/layer"
  archive "$OUT/$name.tar" "$1" \
    "$(jq -n --arg e "/usr/local/bin/$name" '{User: "65532:65532", Entrypoint: [$e], Env: ["PATH=/usr/local/bin:/usr/bin:/bin"]}')" \
    "$BASE/base.layer" "$d/layer"
  rm -rf "$d"
}
case ${1:-} in
base)
  OUT=$BASE
  mkdir -p "$OUT"
  exec 9>"$OUT/lock"
  flock 9
  base ;;
program)
  OUT=$4
  mkdir -p "$OUT"
  program "$2" "$3" ;;
*) sed -n '2,3p' "$0" >&2; exit 2 ;;
esac
