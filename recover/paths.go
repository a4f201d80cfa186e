package recover

// stagePrefix begins the name of a directory in which a run stages its copies,
// on the file system that they will live on. Only root gets in.
const stagePrefix = ".os-rescue-"
