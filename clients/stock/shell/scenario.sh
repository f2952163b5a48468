# What each program of this folder shows of its client, and how it says so: a line for each feature.
# A program defines a function for each that succeeds, or prints what it shows instead of `yes`.

set -euo pipefail

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT

words=$(printf 'word %.0s' {1..2400})
long=${words% } # 12 KB that gzip makes much smaller

report() {
    local feature output
    for feature in unary stream errors gzip deadline metadata; do
        # In a shell of its own, that a failure within it ends.
        if output=$(set -e; "check_$feature" 2>"$folder/log"); then
            echo "$feature: ${output:-yes}"
        else
            echo "$feature: failed: $(tr '\n' ' ' <"$folder/log")"
        fi
    done
}

# until_in FILE TEXT: wait until a stream has brought it, for 10 seconds at most.
until_in() {
    for ((tries = 0; tries < 200; tries++)); do
        if grep --quiet --binary-files=text "$2" "$1"; then
            return
        fi
        sleep 0.05
    done
    echo "there is no $2 in: $(cat "$1")" >&2
    return 1
}
