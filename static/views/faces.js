// A character's looks: a picture, or an initial where there is none, and a colour of its own.

import { make } from "./dom.js";

const HUES = [172, 28, 262, 338, 210, 96]; // apart enough to tell six people from each other

/** The hue of character `id`, the same in every session: by its place in the cast. */
export function hue(id, cast) {
  const place = cast.findIndex((each) => each.id === id);
  return HUES[(place < 0 ? 0 : place) % HUES.length];
}

/** A round picture of `character`; its initial if the picture does not load. */
export function face(character, cast) {
  const frame = make("span", { class: "face", "aria-hidden": "true" });
  frame.style.setProperty("--hue", hue(character.id, cast));
  const initial = make("span", { class: "initial" }, character.name.slice(0, 1).toUpperCase());
  const picture = make("img", { src: address(character), alt: "", draggable: "false" });
  picture.addEventListener("error", () => picture.replaceWith(initial));
  frame.append(picture);
  return frame;
}

const address = ({ id, picture }) => picture || `pictures/${encodeURIComponent(id)}.svg`;
