# Sourced by the test scripts: steps with names and times, and an honest account of what was skipped.

passed=0
skipped=()
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
CARGO=${CARGO:-cargo}
CC=${CC:-cc}
CXX=${CXX:-c++}
release=$root/target/release
examples=$root/target/examples-c
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# step NAME COMMAND…: runs it, or ends the whole run.
step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    if ! "$@"; then
        echo "FAILED: $name"
        exit 1
    fi
    passed=$((passed + 1))
    echo "   ok ($((SECONDS - start)) s)"
}

# skip NAME WHY: with CI=true there is no skipping.
skip() {
    echo "== $1: SKIPPED: $2"
    if [[ ${CI:-} == true ]]; then
        echo "FAILED: with CI=true nothing may be skipped"
        exit 1
    fi
    skipped+=("$1: $2")
}

have() { command -v "$1" >/dev/null 2>&1; }

# The closing line.
summary() {
    for one in "${skipped[@]+"${skipped[@]}"}"; do
        echo "skipped: $one"
    done
    echo "$1: $passed passed, 0 failed, ${#skipped[@]} skipped"
}
