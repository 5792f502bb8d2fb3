// The browser of examples. Its state is the address behind "#", so that a view can be linked to and
// the back button works. Text reaches the page through textContent only.
"use strict";
(() => {
  const ROWS_PER_PAGE = 20;
  const MAX_DIFF_CELLS = 4e6; // memory of one comparison; larger ones are marked as a whole
  const MAX_INDENT = 20;

  const splits = JSON.parse(document.getElementById("rows").textContent);
  const at = (id) => document.getElementById(id);

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // ---- state

  function readState() {
    const given = new URLSearchParams(location.hash.slice(1));
    const names = Object.keys(splits);
    return {
      split: names.includes(given.get("split")) ? given.get("split") : names[0],
      kind: given.get("kind") || "",
      query: given.get("query") || "",
      page: Math.max(1, Number.parseInt(given.get("page") || "1", 10) || 1),
    };
  }

  function go(change) {
    const state = { ...readState(), page: 1, ...change };
    const kept = Object.entries(state).filter(([key, value]) => value !== "" && !(key === "page" && value === 1));
    history.pushState(null, "", "#" + new URLSearchParams(kept.map(([key, value]) => [key, String(value)])));
    render();
  }

  // ---- filter

  const hasKind = (row, kind) =>
    kind === "" || (kind === "exact" ? row.exact : kind === "wrong" ? !row.exact : row.errors.includes(kind));

  function hasQuery(row, query) {
    const sought = query.toLowerCase();
    return [row.id, row.input, row.reference, row.prediction].some((text) => text.toLowerCase().includes(sought));
  }

  function countKinds(rows) {
    const counts = new Map([["", rows.length], ["exact", 0], ["wrong", 0]]);
    const count = (kind) => counts.set(kind, (counts.get(kind) || 0) + 1);
    for (const row of rows) {
      count(row.exact ? "exact" : "wrong");
      for (const kind of new Set(row.errors)) count(kind);
    }
    const [all, exact, wrong, ...kinds] = counts;
    return [all, exact, wrong, ...kinds.sort((a, b) => b[1] - a[1])];
  }

  // ---- comparison

  // Words, numbers, and single other characters. Spaces between them carry no meaning (`space`),
  // except inside a JSON string.
  function tokens(text) {
    return (text.match(/\s+|\d+(?:[.,]\d+)*|[\p{L}\p{M}_]+|[^]/gu) || []).map((token) => ({
      text: token,
      space: /^\s/.test(token),
    }));
  }

  // Breaks JSON into lines without parsing it, so that broken, cut and huge values show as they are.
  function layOut(found) {
    if (!found.length || !"{[".includes(found.find((token) => !token.space)?.text ?? " ")) return found;
    const out = [];
    let depth = 0;
    let inString = false;
    let escaped = false;
    let opensLine = true;
    const newline = () => {
      out.push({ text: "\n" + "  ".repeat(Math.min(depth, MAX_INDENT)), space: true });
      opensLine = true;
    };
    const solid = found.filter((token) => !token.space);
    let index = -1;
    for (const token of found) {
      if (!token.space) index += 1;
      if (inString) {
        out.push({ text: token.text, space: false });
        if (token.text === '"' && !escaped) inString = false;
        escaped = token.text === "\\" && !escaped;
        continue;
      }
      if (token.space) continue;
      const mark = token.text;
      if ("}]".includes(mark)) {
        depth = Math.max(0, depth - 1);
        if (!"{[".includes(solid[index - 1]?.text ?? " ")) newline();
      }
      out.push({ ...token, opensLine });
      opensLine = false;
      if (mark === '"') inString = true;
      else if ("{[".includes(mark)) {
        depth += 1;
        if (!"}]".includes(solid[index + 1]?.text ?? " ")) newline();
      } else if (mark === ",") newline();
      else if (mark === ":") out.push({ text: " ", space: true });
    }
    return out;
  }

  // Marks the tokens of each side that are in no longest common subsequence of both.
  function compare(left, right) {
    const a = left.filter((token) => !token.space);
    const b = right.filter((token) => !token.space);
    let start = 0;
    while (start < a.length && start < b.length && a[start].text === b[start].text) start += 1;
    let endA = a.length;
    let endB = b.length;
    while (endA > start && endB > start && a[endA - 1].text === b[endB - 1].text) {
      endA -= 1;
      endB -= 1;
    }
    const n = endA - start;
    const m = endB - start;
    for (let i = start; i < endA; i += 1) a[i].marked = true;
    for (let j = start; j < endB; j += 1) b[j].marked = true;
    if ((n + 1) * (m + 1) > MAX_DIFF_CELLS) return;
    const width = m + 1;
    const common = new Uint32Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i -= 1) {
      for (let j = m - 1; j >= 0; j -= 1) {
        common[i * width + j] =
          a[start + i].text === b[start + j].text
            ? common[(i + 1) * width + j + 1] + 1
            : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
      }
    }
    for (let i = 0, j = 0; i < n && j < m; ) {
      if (a[start + i].text === b[start + j].text) {
        a[start + i].marked = b[start + j].marked = false;
        i += 1;
        j += 1;
      } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) i += 1;
      else j += 1;
    }
    settle(a);
    settle(b);
  }

  // Of equally short ways to mark a missing line, `"a": 1,` and `a": 1, "`, takes the one that begins
  // where the line does: a run of marks may move back while its last token equals the one before it.
  function settle(found) {
    for (let end = found.length; end > 0; end -= 1) {
      if (!found[end - 1].marked) continue;
      let start = end;
      while (start > 0 && found[start - 1].marked) start -= 1;
      let back = 0;
      while (!found[start - back].opensLine) {
        const before = found[start - back - 1];
        if (!before || before.marked || before.text !== found[end - back - 1].text) break;
        back += 1;
      }
      if (found[start - back].opensLine) {
        for (let i = 1; i <= back; i += 1) {
          found[start - i].marked = true;
          found[end - i].marked = false;
        }
        start -= back;
      }
      end = start + 1;
    }
  }

  function shown(found, markClass) {
    const pre = element("pre", {});
    for (let i = 0; i < found.length; ) {
      const marked = Boolean(found[i].marked);
      let text = "";
      while (i < found.length && Boolean(found[i].marked) === marked) text += found[i++].text;
      pre.append(marked ? element("mark", { className: markClass, textContent: text }) : text);
    }
    return pre;
  }

  function pair(reference, prediction) {
    const sides = [layOut(tokens(reference)), layOut(tokens(prediction))];
    compare(...sides);
    return [shown(sides[0], "missing"), shown(sides[1], "wrong")];
  }

  // ---- page

  function card(row) {
    const tags = row.errors.length ? row.errors : [row.exact ? "exact" : "differs"];
    const facts = [row.finish_reason, row.num_tokens === null ? "" : `${row.num_tokens} tokens`];
    const [reference, prediction] = pair(row.reference, row.prediction);
    const made = element(
      "div",
      { className: "card" },
      element(
        "header",
        {},
        element("b", { textContent: row.id }),
        ...tags.map((tag) => element("span", { className: row.exact ? "tag exact" : "tag", textContent: tag })),
        element("span", { className: "dim", textContent: facts.filter(Boolean).join(" · ") }),
      ),
      element(
        "div",
        { className: "texts" },
        element("div", {}, element("h5", { textContent: "input" }), element("pre", { className: "prose", textContent: row.input })),
        element("div", {}, element("h5", { textContent: "reference" }), reference),
        element("div", {}, element("h5", { textContent: "prediction" }), prediction),
      ),
    );
    if (row.before !== null) made.append(baseModel(row));
    return made;
  }

  function baseModel(row) {
    const details = element("details", {}, element("summary", { textContent: "prediction before training" }));
    details.addEventListener("toggle", () => details.append(pair(row.reference, row.before)[1]), { once: true });
    return details;
  }

  function render() {
    const state = readState();
    const rows = splits[state.split];
    const counts = countKinds(rows);
    const found = rows.filter((row) => hasKind(row, state.kind) && hasQuery(row, state.query));
    const numPages = Math.max(1, Math.ceil(found.length / ROWS_PER_PAGE));
    const page = Math.min(state.page, numPages);

    at("split").value = state.split;
    if (at("query").value !== state.query) at("query").value = state.query;
    at("kinds").replaceChildren(
      ...counts.map(([kind, count]) => {
        const button = element("button", { type: "button" }, (kind || "all") + " ", element("small", { textContent: count.toLocaleString("en") }));
        button.setAttribute("aria-pressed", String(kind === state.kind));
        button.addEventListener("click", () => go({ kind }));
        return button;
      }),
    );
    at("found").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} examples.`;
    at("cards").replaceChildren(...found.slice((page - 1) * ROWS_PER_PAGE, page * ROWS_PER_PAGE).map(card));
    at("page").textContent = `page ${page} of ${numPages}`;
    at("previous").disabled = page <= 1;
    at("next").disabled = page >= numPages;
    at("previous").onclick = () => turn(page - 1);
    at("next").onclick = () => turn(page + 1);
  }

  function turn(page) {
    go({ page });
    at("examples").scrollIntoView();
  }

  let typing;
  at("split").addEventListener("change", (event) => go({ split: event.target.value, kind: "" }));
  at("query").addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => go({ query: event.target.value }), 200);
  });
  // Links such as "#split=test&kind=cut" lead here; "#scores" and the like are left to the browser.
  function follow() {
    if (!location.hash.includes("=")) return;
    render();
    at("examples").scrollIntoView({ behavior: "instant" });
  }

  addEventListener("hashchange", follow);
  addEventListener("popstate", () => (location.hash.includes("=") || !location.hash) && render());
  render();
  follow();
})();
