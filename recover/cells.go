package recover

import "fmt"

// novaParallel is how many instances Nova is asked about at a time, where each
// takes but a few short requests.
const novaParallel = 8

// errCellDown: what Nova says of an instance is nothing but its UUID.
var errCellDown = fmt.Errorf("%w: its cell is down", ErrCloudUnavailable)
