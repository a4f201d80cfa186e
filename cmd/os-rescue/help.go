package main

import (
	"embed"
	"strings"
)

//go:embed help/*.txt
var helpTexts embed.FS

// help returns the long help of a command: the text of help/NAME.txt. It panics
// if there is no such file.
func help(name string) string {
	text, err := helpTexts.ReadFile("help/" + name + ".txt")
	if err != nil {
		panic(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}
