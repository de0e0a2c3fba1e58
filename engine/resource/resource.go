package resource

// Manifest is one file: all its YAML documents. Nobody changes it after Parse.
type Manifest struct {
	// Pipelines are the documents of `kind: pipeline, type: exec`, in the file's order.
	Pipelines []*Pipeline

	// Secrets are the documents of `kind: secret`.
	Secrets []*Secret

	// Others are the documents that are not this runner's: other types of pipelines, signatures, templates.
	Others []*Other

	// Faults belong to no pipeline: a document that is no mapping, a value of a secret that cannot be used.
	Faults []Fault
}

// Pos is a place in the file, both counted from 1. After substitution it is a place in the text that came out: no value
// adds a line, so the line is the file's as well unless an expression spans several; the column may differ. The zero Pos
// is that of a value which was not given.
type Pos struct {
	Line   int
	Column int
}

// String is a scalar and where it stands.
type String struct {
	Value string
	Pos   Pos
}

// Int is a whole number and where it stands.
type Int struct {
	Value int
	Pos   Pos
}

// Other is a document that this runner only passes over.
type Other struct {
	Kind, Type, Name string
	Pos              Pos
}

// Secret is a document of `kind: secret`: data is encrypted with the repository's key (AES-GCM in base64, made by
// `drone encrypt`), path and name are where an external provider keeps it.
type Secret struct {
	Name    String
	Data    string
	GetPath string
	GetName string
	Pos     Pos
	Unknown []Key
}

// Pipeline is a document of `kind: pipeline, type: exec`. What a key that was left out means is decided by who uses it; the
// zero values here say only that it was.
type Pipeline struct {
	Name      String
	Clone     Clone
	Workspace String
	Trigger   Conditions
	DependsOn []String
	Steps     []*Step
	Pos       Pos

	// Faults are values that cannot be used, Unknown the keys that this runner does not know.
	Faults  []Fault
	Unknown []Key
}

// Clone is the section `clone`. Depth zero is the whole history, Retries zero one attempt.
type Clone struct {
	Disable    bool
	Depth      Int
	Retries    Int
	Tags       bool
	SkipVerify bool
	Trace      bool
}

// Step is one entry of `steps`. Image is never used: an exec pipeline has none, and the linter says so. Of Failure only
// `ignore` has a meaning.
type Step struct {
	Name        String
	Commands    []String
	Environment []Variable
	DependsOn   []String
	Detach      bool
	Failure     String
	Shell       String
	Image       String
	When        Conditions
	Pos         Pos
}

// Variable is one entry of a step's environment: a literal value, or the name of a secret. The secret wins over a value.
type Variable struct {
	Name   String
	Value  string
	Secret String
}

// FaultKind tells kinds of faults apart; each is a rule of the linter.
type FaultKind string

// The kinds of faults.
const (
	FaultNull      FaultKind = "null"
	FaultType      FaultKind = "type"
	FaultDuplicate FaultKind = "duplicate-key"
)

// Fault is a value that cannot be used where it stands.
type Fault struct {
	Kind    FaultKind
	Pos     Pos
	Message string
}

// Section is the part of a document in which a key stands.
type Section string

// The sections with keys of their own.
const (
	InPipeline    Section = "pipeline"
	InClone       Section = "clone"
	InWorkspace   Section = "workspace"
	InPlatform    Section = "platform"
	InConcurrency Section = "concurrency"
	InTrigger     Section = "trigger"
	InStep        Section = "step"
	InWhen        Section = "when"
	InCondition   Section = "condition"
	InVariable    Section = "environment"
	InSecret      Section = "secret"
	InGet         Section = "get"
)

// Key is a key that this runner does not know, and the section in which it stands.
type Key struct {
	Section Section
	Name    string
	Pos     Pos

	// Similar is the known key that was probably meant, if one is close.
	Similar string
}

// DefaultName is the name of a pipeline that has none, as the server sees it.
const DefaultName = "default"

// Pick finds the pipeline of a stage; nil if there is none. As on the server, no name is the name `default`. Of two with one
// name it is the first; the linter refuses such a file.
func (m *Manifest) Pick(stage string) *Pipeline {
	if stage == "" {
		stage = DefaultName
	}
	for _, p := range m.Pipelines {
		if p.StageName() == stage {
			return p
		}
	}
	return nil
}

// StageName is the name under which the server knows the pipeline.
func (p *Pipeline) StageName() string {
	if p.Name.Value == "" {
		return DefaultName
	}
	return p.Name.Value
}
