/** Tell a person what was found, what was expected and what to do. */
export class PhotoError extends Error {}
