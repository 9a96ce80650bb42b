// What went wrong, in words for the listener, with the status to answer while nothing has been sent.

export class Failure extends Error {
  constructor(code, status, message) {
    super(message);
    this.code = code;
    this.status = status;
  }
}
