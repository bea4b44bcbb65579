/** Show what the classifier says of a photo. Names come from a file: text only, never HTML. */

const BEST = 5; // classes with a bar

const $ = (id) => document.getElementById(id);

/** Show the photo and its classes; return the best one in words. */
export function showAnswer(file, classes, shares) {
  const ranked = classes.map((name, index) => ({ name, share: shares[index] }));
  ranked.sort((a, b) => b.share - a.share); // stable, as Python's order of ties
  showPhoto(file);
  $("answer").textContent = ranked[0].name;
  $("best").replaceChildren(...ranked.slice(0, BEST).map(bar));
  $("rest").hidden = ranked.length <= BEST;
  $("more").textContent = `All ${ranked.length} classes`;
  $("all").replaceChildren(...ranked.map(row));
  $("result").hidden = false;
  return `${ranked[0].name}, ${percent(ranked[0].share)}.`;
}

function showPhoto(file) {
  const picture = $("picture");
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = `Your photo, ${file.name || "pasted"}`;
}

function bar({ name, share }) {
  const filled = element("i");
  filled.style.width = `${100 * share}%`;
  const track = element("span", "bar");
  track.setAttribute("aria-hidden", "true");
  track.append(filled);
  const item = element("li");
  item.append(element("span", "name", name), element("span", "share", percent(share)), track);
  return item;
}

function row({ name, share }) {
  const line = element("tr");
  const head = element("th", "", name);
  head.scope = "row";
  line.append(head, element("td", "", percent(share)));
  return line;
}

function element(kind, style = "", text = "") {
  return Object.assign(document.createElement(kind), { className: style, textContent: text });
}

function percent(share) {
  return share < 0.0005 ? "under 0.1 %" : `${(100 * share).toFixed(1)} %`;
}
