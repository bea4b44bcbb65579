"""Pin whose emoji drawings are fetched: package, hash, licence, and the hash of what is kept.

Only drawings under an open licence are here; Apple's and Facebook's are not. The package
emoji-datasource itself is never fetched, because its archive holds their drawings too: its list of
emoji comes from emoji-datasource-twitter, which has the same file.
"""

from dataclasses import dataclass

from fedprompt.npm import Package

CATALOGUE = "emoji.json"
_JOINERS = ("200d", "fe0f")


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """Say where one vendor's drawings lie in an npm package, and whose they are.

    Attributes
    ----------
    name
        The domain's name.
    folder, suffix
        Where in the package the images lie, and how their names end.
    joiners
        Whether file names have the code points that draw nothing themselves.
    papers
        Files of the package that state its licence.
    credit
        Author and licence of the drawings.
    sha256
        Hash of the images that are kept (`fedprompt.data.emoji.digest_of`).
    extra
        Files of the package that are kept with the images.
    """

    name: str
    package: Package
    folder: str
    suffix: str
    joiners: bool = True
    papers: tuple[str, ...]
    credit: str
    sha256: str
    extra: tuple[str, ...] = ()

    def file(self, codes: str) -> str:
        """Return the file name of an emoji's image."""
        parts = [p for p in codes.split("-") if self.joiners or p not in _JOINERS]
        return "-".join(parts) + self.suffix


VENDORS = (
    Vendor(
        name="twemoji",
        package=Package(
            name="emoji-datasource-twitter",
            version="16.0.0",
            integrity="sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZew"
            "Wg8jBbuL2eyELQ==",
            size=61_683_754,
        ),
        folder="img/twitter/64/",
        suffix=".png",
        papers=("LICENSE", "README.md"),
        credit="Twemoji 16.0.1, Copyright Twitter, Inc and other contributors, CC-BY 4.0 "
        "(https://creativecommons.org/licenses/by/4.0/), https://github.com/jdecked/twemoji; made "
        "into 64-pixel PNG files by emoji-datasource, whose list of emoji is under the MIT licence",
        sha256="89623d071a53a02ec2b053696a5b033f8ec10a3ef698e8850257afc5a95b15de",
        extra=(CATALOGUE,),
    ),
    Vendor(
        name="noto",
        package=Package(
            name="emoji-datasource-google",
            version="16.0.0",
            integrity="sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkO"
            "PJCoT8DlPhfQ3A==",
            size=74_344_091,
        ),
        folder="img/google/64/",
        suffix=".png",
        papers=("LICENSE", "README.md"),
        credit="Noto Emoji 2.048 by Google, Apache License 2.0 "
        "(https://www.apache.org/licenses/LICENSE-2.0), https://github.com/googlefonts/noto-emoji; "
        "made into 64-pixel PNG files by emoji-datasource",
        sha256="f7788a68f77e7b15411fd8d9bfaf4a6dbc836547a916dd1015bc511d5b93d8aa",
    ),
    Vendor(
        name="fluent",
        package=Package(
            name="@lobehub/fluent-emoji-3d",
            version="1.1.0",
            integrity="sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5"
            "wRBv60lUAG3h7g==",
            size=15_792_027,
        ),
        folder="assets/",
        suffix=".webp",
        papers=("README.md", "package.json"),
        credit="Fluent Emoji in 3D, Copyright Microsoft Corporation, MIT licence, "
        "https://github.com/microsoft/fluentui-emoji; made into 256-pixel WebP files by LobeHub, "
        "MIT licence, https://github.com/lobehub/fluent-emoji",
        sha256="98f0165999823f4869d5721ddf937d7f1b001b8ed9cc17763dafc6bd2df0ce70",
    ),
    Vendor(
        name="emojione-bw",
        package=Package(
            name="emojione",
            version="2.2.7",
            integrity="sha512-Gbf8qysc34+TFUS5HPwOUY62v8gjLuPmfVTWUR/zirULSYUe/D3MrvYo0W5Y2gScF1YI7EBe"
            "5t81IbD8q144Ag==",
            size=94_196_568,
        ),
        folder="assets/png_bw/",
        suffix=".png",
        joiners=False,
        papers=("LICENSE.md", "README.md"),
        credit="EmojiOne 2.2.7, black and white, provided free by EmojiOne (https://emojione.com), "
        "CC-BY 4.0 (https://creativecommons.org/licenses/by/4.0/); later versions are not free",
        sha256="860967a26e90455282926872de0d25878e7faca7b8a1bc9fee2e73ff8b09911b",
    ),
)
