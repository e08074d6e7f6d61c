#!/bin/sh
# Take out of the environment DIR what no pod runs: slim.sh DIR
set -eu
site=$(echo "$1"/lib/python3*/site-packages)

# dask-kubernetes asks for three clients of the API and imports none of them: 165 MB
for unused in kubernetes kubernetes-asyncio pykube-ng; do
    "$1/bin/pip" uninstall --yes --quiet "$unused" 2> /dev/null
done
"$1/bin/pip" uninstall --yes --quiet pip

# tests, headers, sources and stubs of packages
find "$site" -depth -type d -name tests -exec rm -rf {} +
find "$site" -type f \( -name '*.pyi' -o -name '*.px[di]' -o -name '*.pyx' -o -name '*.h' \
    -o -name '*.c' -o -name '*.cpp' -o -name '*.a' -o -name '*.map' \) -delete
rm -rf "$site"/pyarrow/include "$site"/pyarrow/src
# remote calls of Arrow
rm -f "$site"/pyarrow/*_flight*
# scripts of Bokeh for who debugs them
find "$site/bokeh/server/static/js" -name '*.js' ! -name '*.min.js' -delete
# Amazon's services but for S3 and how one signs in
if [ -d "$site/botocore/data" ]; then
    find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d \
        ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -rf {} +
fi

# compiled once here: pods start on a read-only file system and cannot keep what they compile
"$1/bin/python" -m compileall -q -j 2 "$site"
# dasrec itself comes in a layer of its own
echo "$1/code" > "$site/dasrec.pth"
