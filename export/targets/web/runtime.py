"""Get onnxruntime-web, pinned, from npm; what was fetched once is kept in the cache.

Two builds go into a page: with WebGPU, and a smaller one for WebAssembly alone. Both are single
modules that load their own ``.wasm`` and nothing else.
"""

from fedprompt.data.cache import cache_folder
from fedprompt.errors import DataError
from fedprompt.identity import sha256_bytes
from fedprompt.npm import Package, fetch_files
from fedprompt.storage import write_atomic

PACKAGE = Package(
    name="onnxruntime-web",
    version="1.30.0",
    integrity="sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR"
    "4CXAfKYQ==",
    size=33_106_585,
    largest=32 << 20,
)
# name in the page's folder -> (file of the package, SHA-256); .js, for servers that know no .mjs
FILES = {
    "webgpu.js": (
        "dist/ort.webgpu.bundle.min.mjs",
        "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    ),
    "webgpu.wasm": (
        "dist/ort-wasm-simd-threaded.asyncify.wasm",
        "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
    ),
    "wasm.js": (
        "dist/ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "wasm.wasm": (
        "dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}


def runtime_files() -> dict[str, bytes]:
    """Return onnxruntime-web's files by their names in a page's folder.

    Raises
    ------
    DataError
        They are not in the cache and cannot be fetched.
    """
    kept = _kept()
    return kept if _sound(kept) else _fetch()


def _sound(files: dict[str, bytes]) -> bool:
    return {name: sha256_bytes(content) for name, content in files.items()} == {
        name: digest for name, (_, digest) in FILES.items()
    }


def _kept() -> dict[str, bytes]:
    folder = cache_folder() / f"{PACKAGE.name}-{PACKAGE.version}"
    return {name: path.read_bytes() for name in FILES if (path := folder / name).is_file()}


def _fetch() -> dict[str, bytes]:
    wanted = {source: name for name, (source, _) in FILES.items()}
    folder = cache_folder() / f"{PACKAGE.name}-{PACKAGE.version}"
    try:
        fetched = fetch_files(PACKAGE, wanted.__contains__)
    except DataError as error:
        raise DataError(
            f"the page's runtime could not be fetched: {error}. Connect to the internet, or copy "
            f"{folder} from a machine that has it"
        ) from error
    files = {wanted[source]: content for source, content in fetched.items()}
    if not _sound(files):
        raise DataError(f"{PACKAGE.name} {PACKAGE.version} does not hold the files that are pinned")
    for name, content in files.items():
        write_atomic(folder / name, content)
    return files
