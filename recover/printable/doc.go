// Package printable makes text that others may have written fit for a terminal and for a log:
// names of instances and projects, paths, errors of other programs. Whoever can name a file
// could otherwise repaint the screen, hide what stands there, or forge a line.
//
// Everything that the program shows passes one of its four doors: Sprintf for text that is put
// together, Block for text that is written out, OneLine for what must stay one line, and JSON.
//
// May call: nothing of ours.
//
// Invariants: what comes out of a door is valid UTF-8 without control characters, characters
// that change the direction of text, and characters that show nothing. Only the program's own
// text may have colours and more than one line. JSON keeps its value.
package printable
