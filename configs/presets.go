// Package configs holds the configurations built into the program: default,
// the embedded run; smoke, everything real but tiny; paper, the recipe of
// arXiv 2509.15714; llama31-8b and h200, that experiment on one card.
package configs

import "embed"

// Files are the presets, NAME.toml each.
//
//go:embed *.toml
var Files embed.FS
