// Package told is how the programs of these tests tell what they found: a line each, name, tab, value.
package told

import (
	"fmt"
	"os"
)

// Tell writes one line.
func Tell(name string, value any) { fmt.Printf("%s\t%v\n", name, value) }

// Must gives the value, or ends the program with the error.
func Must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}
