#!/bin/sh
# Puts together what a release has, with checksums: deploy/release.sh VERSION FOLDER
#
# `cargo xtask build` has to be done. REFLEX_EDGE_BIN and REFLEX_WASM say where its files are otherwise.
# The archives are the same for the same files, whoever makes them and when.
set -eu
cd "$(dirname "$0")/.."

version=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
binary=${REFLEX_EDGE_BIN:-target/dist/reflex-edge}
wasm=${REFLEX_WASM:-target/wasm}
name=reflex-edge-$version-x86_64-linux

archive() { # FILE FOLDER WHAT...
    file=$1
    folder=$2
    shift 2
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" \
        -C "$folder" -cf - "$@" | gzip -n -9 > "$file"
}

draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT

# The program, with all that is installed beside it.
install -D -m 0755 "$binary" "$draft/$name/bin/reflex-edge"
mkdir -p "$draft/$name/man/man1" "$draft/$name/completions"
"$binary" man "$draft/$name/man/man1"
for shell in bash elvish fish powershell zsh; do
    "$binary" completions "$shell" > "$draft/$name/completions/reflex-edge.$shell"
done
install -m 0644 README.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE "$draft/$name/"
install -D -m 0644 -t "$draft/$name/systemd" deploy/systemd/reflex-edge.service deploy/systemd/reflex-edge.socket
install -D -m 0644 -t "$draft/$name/envoy" envoy/envoy.yaml envoy/deploy/reflex-edge.service
archive "$out/$name.tar.gz" "$draft" "$name"

# The module for Envoy, and the components.
for module in reflex-envoy.core reflex-middleware reflex-policy reflex-keyvalue; do
    install -m 0644 "$wasm/$module.wasm" "$out/$module-$version.wasm"
done

# Their interfaces, and the chart.
archive "$out/reflex-cache-wit-$version.tar.gz" . wit
archive "$out/reflex-edge-chart-$version.tgz" deploy/helm reflex-edge

cd "$out"
rm -f SHA256SUMS
sha256sum -- *"$version"* > "$draft/SHA256SUMS"
mv "$draft/SHA256SUMS" SHA256SUMS
chmod 0644 SHA256SUMS
