"""Every error a user of the benchmark can meet, and the exit code each one ends with.

BenchmarkError                    exit 1
├── UserError                     exit 2: the caller's mistake, told in one line
│   ├── UnknownEntryError         a name that no entry has (near matches are given)
│   ├── DuplicateEntryError       two entries want one name
│   ├── InvalidEntryError         an entry, budget or suite whose values make no sense
│   ├── DeviceError               a device that this machine does not have
│   ├── ModelContractError        a model whose outputs are not what its task needs
│   ├── InputContractError        inputs or targets outside their declared range
│   ├── DataError                 a data set that cannot be read
│   │   ├── DataMissingError      its files are not here
│   │   └── DataDamagedError      its files are not what was published
│   ├── CheckpointError           weights that are absent, refused or damaged
│   └── ResultsError              a results folder that cannot be read or written
│       ├── NewerSchemaError      a record written by a newer version
│       └── DamagedRecordError    a record that is torn, altered or not a record
└── ViolatedCertificateError      exit 1: a score below what a certificate proves
"""


class BenchmarkError(Exception):
    """Base of every error that the command line prints in one line, without a traceback."""

    exit_code = 1


class UserError(BenchmarkError):
    """The caller asked for something that cannot be; the text says what to do instead."""

    exit_code = 2


class UnknownEntryError(UserError, KeyError):
    """A name that no entry of the registry has."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0])


class DuplicateEntryError(UserError, ValueError):
    """Two entries want the same name; both origins are named."""


class InvalidEntryError(UserError, ValueError):
    """An entry, threat model, budget or suite holds values that contradict each other."""


class DeviceError(UserError):
    """The requested device does not exist on this machine."""


class ModelContractError(UserError, ValueError):
    """A model returns something else than the raw head tensors that its task scores."""


class InputContractError(UserError, ValueError):
    """Inputs or targets lie outside the range their data set or task declares."""


class DataError(UserError):
    """A data set cannot be read."""


class DataMissingError(DataError):
    """The files of a data set are not in the data folder; the text says how to get them."""


class DataDamagedError(DataError):
    """A file of a data set is truncated, altered or of another kind than announced."""


class CheckpointError(UserError):
    """Weights are absent, of a refused format, or differ from their checksum."""


class ResultsError(UserError):
    """A results folder cannot be read or written."""


class NewerSchemaError(ResultsError):
    """A record was written by a newer version of the benchmark."""


class DamagedRecordError(ResultsError):
    """A record is torn, altered, or no record at all."""


class ViolatedCertificateError(BenchmarkError):
    """An attack lowered a score below what a certificate proves: the certificate or the suite is wrong."""
