#!/usr/bin/env bash
# build.sh FOLDER: generates stubs of all protos by Debian's protoc, compiles them with Program.java
# against Debian's packages, and writes FOLDER/program, which runs it.
set -euo pipefail

folder=$1
rm -rf "$folder"
mkdir -p "$folder/src" "$folder/classes"

jars=
for name in grpc-{api,context,core,netty,protobuf,protobuf-lite,stub} guava perfmark-api protobuf \
    netty-{buffer,codec,codec-http,codec-http2,common,handler,resolver,transport} geronimo-annotation-1.3-spec; do
    jar=/usr/share/java/$name.jar
    [[ -f $jar ]] || { echo "there is no $jar" >&2; exit 1; }
    jars+=:$jar
done

here=$(dirname "$0")
protos=$here/../../../protos
# libprotobuf-java has google/protobuf.
files=$(cd "$protos" && find memoryd buf google/api google/rpc -name '*.proto')
# shellcheck disable=SC2086  a word for each
protoc -I "$protos" --java_out="$folder/src" \
    --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin)" --grpc-java_out="$folder/src" $files
find "$folder/src" -name '*.java' >"$folder/sources"
javac -proc:none -nowarn -d "$folder/classes" -cp "$jars" @"$folder/sources" "$here/Program.java"

cat >"$folder/program" <<END
#!/bin/sh
exec java -cp "$(cd "$folder" && pwd)/classes$jars" Program "\$@"
END
chmod +x "$folder/program"
