#!/usr/bin/env bash
# grpcurl.sh ADDRESS COUNTED_ADDRESS: HOST:PORT of gRPC
source "$(dirname "$0")/scenario.sh"

address=$1

call() { # METHOD JSON [OPTION...]
    grpcurl -plaintext "${@:3}" -d "$2" "$address" "memoryd.v1.MemoryService/$1"
}

watch() { # [OPTION...], in a shell of its own
    exec grpcurl -plaintext "$@" -d '{"session_id": "grpcurl"}' "$address" \
        memoryd.v1.MemoryService/WatchMemories
}

check_unary() {
    call StoreMemory '{"session_id": "grpcurl", "content": "prefers e-mail"}' >"$folder/stored"
    call RetrieveMemories '{"session_id": "grpcurl", "query": "e-mail"}' >"$folder/retrieved"
    grep --quiet '"content": "prefers e-mail"' "$folder/retrieved"
}

check_stream() {
    watch >"$folder/changes" &
    until_in "$folder/changes" 'prefers e-mail'
    call StoreMemory '{"session_id": "grpcurl", "content": "likes tea"}' >"$folder/stored"
    until_in "$folder/changes" 'likes tea'
    kill $!
}

check_errors() {
    if call StoreMemory '{"session_id": "grpcurl"}' >"$folder/refused" 2>&1; then
        return 1
    fi
    grep --quiet 'Code: InvalidArgument' "$folder/refused"
    grep --quiet '"reason": *"ERROR_REASON_INVALID_REQUEST"' "$folder/refused"
    grep --quiet '"field": *"content"' "$folder/refused"
}

check_gzip() {
    echo no
}

check_deadline() {
    if (watch -max-time 0.3) >"$folder/refused" 2>&1; then
        return 1
    fi
    grep --quiet DeadlineExceeded "$folder/refused"
}

check_metadata() {
    call ListMemories '{"session_id": "grpcurl"}' -H 'x-request-id: mine' -v >"$folder/listed"
    grep --quiet '^x-request-id: mine' "$folder/listed"
}

report
