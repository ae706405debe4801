#!/usr/bin/env bash
# s3_server.sh: prints the path of an S3 server for tests, versitygw, building it first where the cache has none (minutes,
# once). Tests find it through FINAIFLOW_TEST_S3_SERVER.
. "$(dirname "$0")/lib.sh"

version=v1.8.0
dir=$CACHE/versitygw-$version
build() {
  CGO_ENABLED=0 GOBIN=$dir/new retry go install -trimpath -ldflags '-s -w' "github.com/versity/versitygw/cmd/versitygw@$version"
  mv "$dir/new/versitygw" "$dir/versitygw"
}
cached "$dir/versitygw" "building the S3 server with Go, once: about 3 minutes on 2 cores" build
echo "$dir/versitygw"
