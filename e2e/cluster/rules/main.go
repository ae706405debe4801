// Reads files with rules as Prometheus does, and says what it would not take of them.
package main

import (
	"fmt"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
)

func main() {
	failed := len(os.Args) < 2
	for _, file := range os.Args[1:] {
		groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation)
		for _, err := range errs {
			fmt.Fprintln(os.Stderr, err)
		}
		failed = failed || len(errs) > 0 || len(groups.Groups) == 0
	}
	if failed {
		os.Exit(1)
	}
}
