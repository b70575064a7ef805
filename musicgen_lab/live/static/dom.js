// Elements of the page, made by its scripts.
export const $ = (id) => document.getElementById(id);

export const element = (tag, className = "", content = []) => {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...[content].flat());
  if (tag === "button") made.type = "button";
  return made;
};

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
