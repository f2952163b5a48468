#!/usr/bin/env bash
# buf.sh PROTOCOL ADDRESS COUNTED_ADDRESS: connect or grpcweb and HOST:PORT of HTTP, or grpc and that of gRPC
source "$(dirname "$0")/scenario.sh"

session=buf-$1
protocol=(--protocol "$1" --schema "$(dirname "$0")/../../../protos")
if [[ $1 == grpc ]]; then
    protocol+=(--http2-prior-knowledge)
fi
url=http://$2/memoryd.v1.MemoryService
counted=http://$3/memoryd.v1.MemoryService

call() { # METHOD JSON [OPTION...]
    buf curl "${protocol[@]}" "${@:3}" --data "$2" "$url/$1"
}

watch() { # [OPTION...], in a shell of its own
    exec buf curl "${protocol[@]}" "$@" --data "{\"session_id\": \"$session\"}" "$url/WatchMemories"
}

check_unary() {
    call StoreMemory "{\"session_id\": \"$session\", \"content\": \"prefers e-mail\"}" >"$folder/stored"
    call RetrieveMemories "{\"session_id\": \"$session\", \"query\": \"e-mail\"}" >"$folder/retrieved"
    grep --quiet '"content": *"prefers e-mail"' "$folder/retrieved"
}

check_stream() {
    watch >"$folder/changes" &
    until_in "$folder/changes" 'prefers e-mail'
    call StoreMemory "{\"session_id\": \"$session\", \"content\": \"likes tea\"}" >"$folder/stored"
    until_in "$folder/changes" 'likes tea'
    kill $!
}

check_errors() {
    if call StoreMemory "{\"session_id\": \"$session\"}" >"$folder/refused" 2>&1; then
        return 1
    fi
    grep --quiet '"code": *"invalid_argument"' "$folder/refused"
    # With Connect the server adds what each detail says, which is in base64 else.
    if [[ $session == buf-connect ]]; then
        grep --quiet '"reason": *"ERROR_REASON_INVALID_REQUEST"' "$folder/refused"
        grep --quiet '"field": *"content"' "$folder/refused"
        return
    fi
    sed -n 's/.*"value": *"\(.*\)".*/\1/p' "$folder/refused" | while read -r value; do
        base64 --decode <<<"$value"
    done >"$folder/details"
    grep --quiet --binary-files=text ERROR_REASON_INVALID_REQUEST "$folder/details"
    grep --quiet --binary-files=text content "$folder/details"
    echo in base64
}

check_gzip() {
    url=$counted call StoreMemory "{\"session_id\": \"$session\", \"content\": \"$long\"}" >"$folder/stored"
    grep --quiet "\"content\": *\"$long\"" "$folder/stored"
    if [[ $session == buf-grpc ]]; then echo no; else echo answers; fi
}

check_deadline() {
    if (watch --timeout 600ms) >"$folder/refused" 2>&1; then
        return 1
    fi
    grep --quiet 'deadline_exceeded\|deadline exceeded' "$folder/refused"
}

check_metadata() {
    call ListMemories "{\"session_id\": \"$session\"}" --header 'x-request-id: mine' --verbose \
        >"$folder/listed" 2>&1
    grep --quiet --ignore-case 'x-request-id: mine' "$folder/listed"
}

report
