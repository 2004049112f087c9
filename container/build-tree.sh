#!/bin/sh
# Makes the directory that an image consists of: an environment with the locked dependencies of one target and Halyard
# itself, compiled, and without what only a developer needs. The Dockerfile and the tests of the image both run this.
#
#   container/build-tree.sh relay|upstream PREFIX     (from the top of the source tree; PREFIX must not exist)
#
# PYTHON names the interpreter; its pip works from outside, so that none gets into the tree.
set -eu

target=$1
prefix=$2
python=${PYTHON:-python3}
case $target in relay | upstream) ;; *) echo "build-tree: $target is neither relay nor upstream" >&2; exit 2 ;; esac
command -v strip >/dev/null || { echo "build-tree: strip (binutils) is needed" >&2; exit 2; }
if [ -e "$prefix" ]; then echo "build-tree: $prefix exists already" >&2; exit 2; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv --without-pip "$prefix"
into() { "$python" -m pip --python "$prefix/bin/python" install -q --disable-pip-version-check --no-compile "$@"; }
# Wheels only: a dependency without one would need a compiler, and run code of its own while it is built.
into --only-binary :all: --require-hashes -r "requirements/$target.txt"
# Built from a copy, because the build backend leaves files beside what it builds.
cp -R pyproject.toml README.md LICENSE relay upstream "$work/"
"$python" -m pip wheel -q --disable-pip-version-check --no-deps -w "$work/wheel" "$work"
into --no-deps --no-index "$work"/wheel/halyard-*.whl

packages=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# The wheel holds both services; a relay has no use for the other one, and import-linter shows that it needs none of it.
if [ "$target" = relay ]; then rm -rf "$packages/upstream" "$prefix/bin/halyard"; fi
# Programs of dependencies, and scripts for shells.
find "$prefix/bin" -mindepth 1 ! -name 'python*' ! -name 'halyard*' -delete
# Tests of dependencies, and what only compilers and type checkers read.
find "$packages" -type d \( -name tests -o -name test -o -name testing \) -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' -o -name '*.cpp' \) -delete
find "$packages" -type f \( -name '*.so' -o -name '*.so.*' \) -exec strip --strip-debug {} +
rm -rf "$prefix/include" "$prefix/share"

# Nothing is compiled at run time, where the tree cannot be written. By hash and unchecked: a file's date means nothing
# after it has been copied from image to image.
"$prefix/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
