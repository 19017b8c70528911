package judge

import (
	"os"
	"path/filepath"

	"onceupon/trainer/fault"
)

// known are the teachers that scripts/fetch-teacher provides. Both read best
// in plain text with worked examples (docs/teachers.md).
var known = map[string]struct{ file, rubric string }{
	"gemma-270m":   {"gemma-3-270m-q4_k_m.gguf", "plain"},
	"smollm2-135m": {"SmolLM2-135M-Instruct.Q4_1.gguf", "plain"},
}

// folders are searched for libllama and the teachers: beside the program, then
// the user's data folder.
func folders() []string {
	var all []string
	if program, err := os.Executable(); err == nil {
		all = append(all, filepath.Dir(program), filepath.Join(filepath.Dir(program), "..", "share", "onceupon"))
	}
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		if home, err := os.UserHomeDir(); err == nil {
			base = filepath.Join(home, ".local", "share")
		}
	}
	return append(all, filepath.Join(base, "onceupon"))
}

func find(parts ...string) (string, bool) {
	for _, dir := range folders() {
		path := filepath.Join(append([]string{dir}, parts...)...)
		if _, err := os.Stat(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// FindLlama returns the folder of libllama: dir if given, else where it was
// fetched to.
func FindLlama(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	if path, ok := find("llama", "libllama.v0.5.0.so"); ok {
		return filepath.Dir(path), nil
	}
	return "", fault.New(fault.Capability, "libllama is not there: run `make fetch` or give --llama-dir DIR")
}

// FindModel returns the path of a teacher and the rubric it reads best with;
// "" leaves the choice to the model's chat template.
func FindModel(name string) (path, rubric string, err error) {
	teacher, isName := known[name]
	if !isName {
		return name, "", nil
	}
	if path, ok := find("teachers", teacher.file); ok {
		return path, teacher.rubric, nil
	}
	return "", "", fault.New(fault.Capability, "teacher %s (%s) is not there: run `make fetch` or give --teacher PATH", name, teacher.file)
}
