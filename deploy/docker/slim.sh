#!/bin/sh
# Take out of the environment DIR what no pod runs: slim.sh DIR REQUIREMENTS
set -eu
site=$(echo "$1"/lib/python3*/site-packages)

"$1/bin/pip" uninstall --yes --quiet pip

# tests, headers, sources and stubs of packages
find "$site" \( -name '*_tests.*.so' -o -name '_simd.*.so' \) -delete
find "$site" -depth -type d \( -name test -o -name tests \) -exec rm -rf {} +
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
# Amazon's services but for S3 and how one signs in
if [ -d "$site/botocore/data" ]; then
    find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d \
        ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -rf {} +
fi

"$1/bin/python" "$(dirname "$0")/trim.py" "$site"

"$1/bin/python" "$(dirname "$0")/imports.py" "$2"

# modules are kept as bytecode only: pods start on a read-only file system and could not keep what they
# compile, and sources beside it would take 80 MB more
find "$site" -depth -type d -name __pycache__ -exec rm -rf {} +
"$1/bin/python" -m compileall -q -b "$site"
find "$site" -name '*.py' -delete
# lists for who uninstalls, and a second copy of where to find maps
rm -rf "$site"/*.dist-info/RECORD "$1/share/xyzservices"
# dasrec itself comes in a layer of its own
echo "$1/code" > "$site/dasrec.pth"
