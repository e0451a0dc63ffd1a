# Where Debian's packages come from. Sourced by `build`.

need apt-get:apt

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -r $KEYRING ]] ||
    die "Debian's archive keys are missing. Install with: sudo apt-get install -y debian-archive-keyring"

# debian_mirror: the configured mirror; on other distributions Debian's own content delivery network.
debian_mirror() {
    local uri
    if [[ -n ${AMIABLE_DEBIAN_MIRROR:-} ]]; then
        printf '%s\n' "${AMIABLE_DEBIAN_MIRROR%/}"
        return
    fi
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep -m1 -E '^https?://.*/debian/?$' || true)
    uri=${uri:-http://deb.debian.org/debian}
    printf '%s\n' "${uri%/}"
}

# debian_sources SUITE: one-line apt sources for a release with its updates and security fixes.
debian_sources() {
    local mirror security
    mirror=$(debian_mirror)
    security=${AMIABLE_DEBIAN_SECURITY_MIRROR:-${mirror%/debian}/debian-security}
    printf 'deb [signed-by=%s] %s %s main\n' \
        "$KEYRING" "$mirror" "$1" \
        "$KEYRING" "$mirror" "$1-updates" \
        "$KEYRING" "${security%/}" "$1-security"
}

# fetch_packages SUITE PACKAGE...: downloads packages, without their dependencies, into the cache through an apt
# configuration of its own (nothing is installed, nothing of the host's apt changes) and prints one path a line.
fetch_packages() {
    local suite=$1 root=$CACHE/apt-$1 package
    shift
    mkdir -p "$root"/{etc,lists/partial,archives/partial,debs}
    debian_sources "$suite" >"$root/etc/sources.list"
    cat >"$root/etc/apt.conf" <<END
Dir::Etc::sourcelist "$root/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$root";
Dir::State::lists "$root/lists";
Dir::State::status "/dev/null";
Dir::Cache "$root";
Dir::Cache::archives "$root/archives";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
END
    # Read after the host's own configuration (its proxies are wanted, what it does after each update is not).
    printf '#clear %s;\n' APT::Update::Pre-Invoke APT::Update::Post-Invoke APT::Update::Post-Invoke-Success \
        DPkg::Post-Invoke >"$root/etc/after.conf"
    export APT_CONFIG=$root/etc/apt.conf
    apt-get -c "$root/etc/after.conf" -qq update >&2 || die "apt could not read Debian's $suite package lists"
    for package in "$@"; do
        # A meta package (linux-image-cloud-amd64) stands for the versioned one that it depends on.
        if [[ $package == linux-image-* ]]; then
            package=$(apt-cache depends "$package" |
                sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
            [[ -n $package ]] || die "Debian $suite has no cloud kernel package"
        fi
        (cd "$root/debs" && apt-get -c "$root/etc/after.conf" -qq download "$package" >&2) ||
            die "apt could not download $package from Debian $suite"
        find "$root/debs" -name "${package}_*.deb" -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p'
    done
}
