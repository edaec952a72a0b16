"""What `import oscsim` offers, and where each name is; imported when it is first asked for."""

from . import datasets as datasets
from . import hardware as hardware
from . import lab as lab
from . import paper as paper
from . import plot as plot
from . import response as response
from .core.errors import (
    RESULTS as RESULTS,
)
from .core.errors import (
    BadType as BadType,
)
from .core.errors import (
    BadValue as BadValue,
)
from .core.errors import (
    ChangedStudyError as ChangedStudyError,
)
from .core.errors import (
    DamagedFileError as DamagedFileError,
)
from .core.errors import (
    DivergenceError as DivergenceError,
)
from .core.errors import (
    InexactGradientError as InexactGradientError,
)
from .core.errors import (
    InexactGradientWarning as InexactGradientWarning,
)
from .core.errors import (
    MaxStepsError as MaxStepsError,
)
from .core.errors import (
    NotHolomorphicError as NotHolomorphicError,
)
from .core.errors import (
    NotRegisteredError as NotRegisteredError,
)
from .core.errors import (
    NotSettledError as NotSettledError,
)
from .core.references import citation as citation
from .core.registry import register as register
from .core.units import Units as Units
from .dynamics import (
    AbstractDemodulator as AbstractDemodulator,
)
from .dynamics import (
    AbstractRecord as AbstractRecord,
)
from .dynamics import (
    AbstractStop as AbstractStop,
)
from .dynamics import (
    Accuracy as Accuracy,
)
from .dynamics import (
    Boxcar as Boxcar,
)
from .dynamics import (
    Cycle as Cycle,
)
from .dynamics import (
    Exponential as Exponential,
)
from .dynamics import (
    GradientError as GradientError,
)
from .dynamics import (
    Hann as Hann,
)
from .dynamics import (
    Integration as Integration,
)
from .dynamics import (
    Locked as Locked,
)
from .dynamics import (
    Mean as Mean,
)
from .dynamics import (
    PerCycle as PerCycle,
)
from .dynamics import (
    PeriodicOrbit as PeriodicOrbit,
)
from .dynamics import (
    Phasors as Phasors,
)
from .dynamics import (
    Plateaus as Plateaus,
)
from .dynamics import (
    Points as Points,
)
from .dynamics import (
    Run as Run,
)
from .dynamics import (
    State as State,
)
from .dynamics import (
    System as System,
)
from .dynamics import (
    advance as advance,
)
from .dynamics import (
    advance_plastic as advance_plastic,
)
from .dynamics import (
    begin as begin,
)
from .dynamics import (
    periodic_orbit as periodic_orbit,
)
from .dynamics import (
    simulate as simulate,
)
from .equilibrium import (
    CorrectedNetwork as CorrectedNetwork,
)
from .equilibrium import (
    Equilibria as Equilibria,
)
from .equilibrium import (
    Equilibrium as Equilibrium,
)
from .equilibrium import (
    MeasuredCorrection as MeasuredCorrection,
)
from .equilibrium import (
    States as States,
)
from .equilibrium import (
    equilibria as equilibria,
)
from .equilibrium import (
    exact_gradient as exact_gradient,
)
from .equilibrium import (
    settle as settle,
)
from .equilibrium.metrics import (
    cosine as cosine,
)
from .equilibrium.metrics import (
    norm_ratio as norm_ratio,
)
from .equilibrium.metrics import (
    per_layer as per_layer,
)
from .equilibrium.metrics import (
    relative_error as relative_error,
)
from .estimators import (
    AbstractEstimator as AbstractEstimator,
)
from .estimators import (
    AlwaysOn as AlwaysOn,
)
from .estimators import (
    Backpropagation as Backpropagation,
)
from .estimators import (
    Classic as Classic,
)
from .estimators import (
    CoupledLearning as CoupledLearning,
)
from .estimators import (
    Ensemble as Ensemble,
)
from .estimators import (
    Estimate as Estimate,
)
from .estimators import (
    Exact as Exact,
)
from .estimators import (
    Homeostatic as Homeostatic,
)
from .estimators import (
    LockIn as LockIn,
)
from .estimators import (
    Orbit as Orbit,
)
from .estimators import (
    Phases as Phases,
)
from .estimators import (
    ensemble as ensemble,
)
from .networks import (
    AbstractActivation as AbstractActivation,
)
from .networks import (
    AbstractCost as AbstractCost,
)
from .networks import (
    AbstractDirectedNetwork as AbstractDirectedNetwork,
)
from .networks import (
    AbstractFeedForwardNetwork as AbstractFeedForwardNetwork,
)
from .networks import (
    AbstractNetwork as AbstractNetwork,
)
from .networks import (
    AbstractPooling as AbstractPooling,
)
from .networks import (
    AveragePooling as AveragePooling,
)
from .networks import (
    Convolution as Convolution,
)
from .networks import (
    ConvolutionalFeedForwardNetwork as ConvolutionalFeedForwardNetwork,
)
from .networks import (
    ConvolutionalNetwork as ConvolutionalNetwork,
)
from .networks import (
    CrossEntropy as CrossEntropy,
)
from .networks import (
    FeedForwardNetwork as FeedForwardNetwork,
)
from .networks import (
    FixedFeedback as FixedFeedback,
)
from .networks import (
    HardTanh as HardTanh,
)
from .networks import (
    HoloTanh as HoloTanh,
)
from .networks import (
    HopfieldNetwork as HopfieldNetwork,
)
from .networks import (
    Identity as Identity,
)
from .networks import (
    Inputs as Inputs,
)
from .networks import (
    LayeredNetwork as LayeredNetwork,
)
from .networks import (
    Layers as Layers,
)
from .networks import (
    Logistic as Logistic,
)
from .networks import (
    MaxPooling as MaxPooling,
)
from .networks import (
    Moving as Moving,
)
from .networks import (
    OwnFeedback as OwnFeedback,
)
from .networks import (
    RaisedCosine as RaisedCosine,
)
from .networks import (
    ReLU as ReLU,
)
from .networks import (
    SiLU as SiLU,
)
from .networks import (
    SoftmaxPooling as SoftmaxPooling,
)
from .networks import (
    SquaredError as SquaredError,
)
from .networks import (
    Tanh as Tanh,
)
from .networks import (
    TimeSeries as TimeSeries,
)
from .networks import (
    check_holomorphic as check_holomorphic,
)
from .networks import (
    convolve as convolve,
)
from .networks import (
    linear as linear,
)
from .networks import (
    models as models,
)
from .networks import (
    parameters as parameters,
)
from .networks import (
    to_dict as to_dict,
)
from .response.suggestion import Suggestion as Suggestion
from .response.suggestion import suggest as suggest
from .response.time_scales import TimeScales as TimeScales
from .response.time_scales import check_time_scales as check_time_scales
from .signals import (
    AbstractForcing as AbstractForcing,
)
from .signals import (
    AbstractNoise as AbstractNoise,
)
from .signals import (
    AbstractReadoutNoise as AbstractReadoutNoise,
)
from .signals import (
    AbstractTeachingNoise as AbstractTeachingNoise,
)
from .signals import (
    Multiplicative as Multiplicative,
)
from .signals import (
    OrnsteinUhlenbeck as OrnsteinUhlenbeck,
)
from .signals import (
    ReadoutNoise as ReadoutNoise,
)
from .signals import (
    RecordedNoise as RecordedNoise,
)
from .signals import (
    StepNoise as StepNoise,
)
from .signals import (
    TeachingNoise as TeachingNoise,
)
from .signals import (
    WhiteNoise as WhiteNoise,
)
from .signals.teaching import (
    AbstractTeaching as AbstractTeaching,
)
from .signals.teaching import (
    Adaptive as Adaptive,
)
from .signals.teaching import (
    Constant as Constant,
)
from .signals.teaching import (
    Cosine as Cosine,
)
from .signals.teaching import (
    Onset as Onset,
)
from .signals.teaching import (
    Rotating as Rotating,
)
from .signals.teaching import (
    Staircase as Staircase,
)
from .sweeps import accept_changes as accept_changes
from .sweeps import load_sweep as load_sweep
from .sweeps import studies as studies
from .sweeps import summarise as summarise
from .sweeps import sweep as sweep
from .training import sklearn as sklearn
from .training.evaluation import evaluate as evaluate
from .training.evaluation import predict as predict
from .training.evaluation import scores as scores
from .training.learning import Trained as Trained
from .training.learning import layerwise as layerwise
from .training.learning import load as load
from .training.learning import train as train
from .training.monitor import Monitor as Monitor
from .training.monitor import Validation as Validation
from .training.plasticity import Learned as Learned
from .training.plasticity import learn as learn
from .training.resuming import Checkpoints as Checkpoints

__version__: str
