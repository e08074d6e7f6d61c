#!/bin/sh
# Take out of the environment DIR what no pod runs: slim.sh DIR REQUIREMENTS
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
# Arrow's remote calls and its own ways to stores, which fsspec has; libraries that are there twice
rm -f "$site"/pyarrow/*_flight* "$site"/pyarrow/*s3* "$site"/pyarrow/_gcsfs* "$site"/pyarrow/_azurefs* \
    "$site"/pyarrow/_hdfs* "$site"/pyarrow/_pyarrow_cpp_tests* \
    "$site"/pyarrow/libarrow_python*.so "$site"/pyarrow/libarrow_python*.so.*.*
# what Bokeh has for who debugs or extends its scripts
find "$site/bokeh/server/static/js" -name '*.js' ! -name '*.min.js' -delete
rm -rf "$site/bokeh/server/static/lib" "$site/bokeh/server/static/js/lib"
# a format of pictures that no page shows
rm -f "$site"/PIL/_avif* "$site"/pillow.libs/libavif*
# Amazon's services but for S3 and how one signs in
if [ -d "$site/botocore/data" ]; then
    find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d \
        ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -rf {} +
fi

"$1/bin/python" "$(dirname "$0")/trim.py" "$site"

# what pods import is compiled here, once: they start on a read-only file system and could not keep it
find "$site" -depth -type d -name __pycache__ -exec rm -rf {} +
"$1/bin/python" "$(dirname "$0")/imports.py" "$2"
# dasrec itself comes in a layer of its own
echo "$1/code" > "$site/dasrec.pth"
