// Of Node's assertions what the programs use, for pages too.

export default {
  equal(found, wanted) {
    if (found !== wanted) {
      throw new Error(`${JSON.stringify(found)} is not ${JSON.stringify(wanted)}`);
    }
  },
  ok(found) {
    if (!found) {
      throw new Error("it is not so");
    }
  },
};
