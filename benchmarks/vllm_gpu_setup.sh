set -e
mkdir -p site && cd /tmp/g
[ -d site/vllm ] || python3 -c "import tarfile,sys; tarfile.open(sys.argv[1]).extractall('site', filter='fully_trusted')" $OLDPWD/.carry/vllm-0.24.0-site.tar.xz
rm -rf cp && mkdir cp && tar xf $OLDPWD/.carry/i5.tar -C cp
mkdir -p meta/pytest_compilepool-0.1.dist-info
printf 'Metadata-Version: 2.1\nName: pytest-compilepool\nVersion: 0.1\n' > meta/pytest_compilepool-0.1.dist-info/METADATA
printf '[vllm.general_plugins]\ncompilepool = pytest_compilepool.vllm.plugin:register\n' > meta/pytest_compilepool-0.1.dist-info/entry_points.txt
ln -s ../suites cp/pytest_compilepool/suites; ln -s ../fixtures cp/pytest_compilepool/workloads
cp -r $OLDPWD/.carry/gpu ; pip install -q --no-index --no-deps --target meta gpu/pyelftools*.whl 2>/dev/null || true
