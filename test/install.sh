#!/bin/sh
# install.sh lab|openstack: installs the packages of that directory's packages.txt
# on Debian 12, and nothing when all is there. Run as root; prints one line. Go
# itself must be there already.
set -eu
cd "$(dirname "$0")/$1"

missing=
while read -r package; do
	[ -n "$package" ] || continue
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done < packages.txt

if [ -z "$missing" ]; then
	echo "$1: all packages are installed"
	exit 0
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
ours=
clean() {
	rm -f "$log"
	[ -z "$ours" ] || rm -f "$policy"
}
trap clean EXIT
# The tests start their own of each service; the machine needs none.
if [ ! -e "$policy" ]; then
	ours=yes
	printf '#!/bin/sh\nexit 101\n' > "$policy"
	chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } > "$log" 2>&1; then
	tail -n 30 "$log" >&2
	echo "$1: could not install:$missing" >&2
	exit 1
fi
echo "$1: installed$missing"
