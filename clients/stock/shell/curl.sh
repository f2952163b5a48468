#!/usr/bin/env bash
# curl.sh ADDRESS COUNTED_ADDRESS: HOST:PORT of HTTP
source "$(dirname "$0")/scenario.sh"

url=http://$1/memoryd.v1.MemoryService
counted=http://$2/memoryd.v1.MemoryService

call() { # METHOD JSON [OPTION...]
    curl --silent --show-error --header 'content-type: application/json' --data "$2" "${@:3}" "$url/$1"
}

request='{"sessionId": "curl"}' # and its frame: flags, and its length in four bytes
printf "\\0\\0\\0\\0\\x$(printf %x ${#request})%s" "$request" >"$folder/request"

watch() { # OPTION..., in a shell of its own
    exec curl --silent --show-error --no-buffer --data-binary @"$folder/request" \
        --header 'content-type: application/connect+json' "$@" "$url/WatchMemories"
}

check_unary() {
    call StoreMemory '{"sessionId": "curl", "content": "prefers e-mail"}' >"$folder/stored"
    call RetrieveMemories '{"sessionId": "curl", "query": "e-mail"}' >"$folder/retrieved"
    grep --quiet '"content": "prefers e-mail"' "$folder/retrieved"
}

check_stream() {
    watch >"$folder/changes" &
    until_in "$folder/changes" 'prefers e-mail'
    call StoreMemory '{"sessionId": "curl", "content": "likes tea"}' >"$folder/stored"
    until_in "$folder/changes" 'likes tea'
    kill $!
}

check_errors() {
    call StoreMemory '{"sessionId": "curl"}' --write-out '%{http_code}' >"$folder/refused"
    grep --quiet '"reason": "ERROR_REASON_INVALID_REQUEST"' "$folder/refused"
    grep --quiet '"field": "content"' "$folder/refused"
    grep --quiet '400$' "$folder/refused"
}

check_gzip() {
    printf '{"sessionId": "curl", "content": "%s"}' "$long" | gzip |
        curl --silent --show-error --compressed --data-binary @- \
            --header 'content-type: application/json' --header 'content-encoding: gzip' \
            "$counted/StoreMemory" >"$folder/stored"
    grep --quiet "\"content\": \"$long\"" "$folder/stored"
}

check_deadline() {
    (watch --header 'connect-timeout-ms: 300') >"$folder/changes"
    grep --quiet --binary-files=text '"code": "deadline_exceeded"' "$folder/changes"
}

check_metadata() {
    call ListMemories '{"sessionId": "curl"}' --header 'x-request-id: mine' --include >"$folder/listed"
    grep --quiet '^x-request-id: mine' "$folder/listed"
}

report
