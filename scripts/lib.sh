# Shared by the scripts of this folder; they source it after setting the shell's options.

# Whoever is called from elsewhere still works at the repository's root.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

# The Go modules of this repository: the product and what only tests and checks need.
modules=(. scripts/testbed scripts/tools)

# need PROGRAM...: makes sure the programs are there. As root on Debian it installs what is missing.
need() {
	local program missing=() packages=()
	if ! command -v go >/dev/null; then
		echo "Go is missing: install Go 1.26 or newer (https://go.dev/doc/install) and put it on PATH." >&2
		return 1
	fi
	for program in "$@"; do
		command -v "$program" >/dev/null && continue
		missing+=("$program")
		case $program in
		gcc) packages+=(gcc libc6-dev) ;;
		nix) packages+=(nix-bin) ;;
		docker | dockerd) packages+=(docker.io) ;;
		busybox) packages+=(busybox-static) ;;
		linux.uml) packages+=(user-mode-linux) ;;
		systemd-analyze) packages+=(systemd) ;;
		*) packages+=("$program") ;;
		esac
	done
	[ ${#missing[@]} -eq 0 ] && return 0
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "${missing[*]} missing: install it (on Debian, as root: apt-get install ${packages[*]})." >&2
		return 1
	fi
	echo "installing ${packages[*]}" >&2
	{ DEBIAN_FRONTEND=noninteractive apt-get -q update &&
		DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${packages[@]}"; } >&2
}

# tool NAME: builds one of the tools of scripts/tools (Go's cache makes it cheap after the first time) and prints its path.
tool() {
	local dir=${XDG_CACHE_HOME:-$HOME/.cache}/cc-ci/tools
	mkdir -p "$dir" || return
	case $1 in
	staticcheck) set -- "$1" honnef.co/go/tools/cmd/staticcheck ;;
	errcheck) set -- "$1" github.com/kisielk/errcheck ;;
	*) set -- "$1" "./$1" ;;
	esac
	go -C scripts/tools build -o "$dir/$1" "$2" && echo "$dir/$1"
}
