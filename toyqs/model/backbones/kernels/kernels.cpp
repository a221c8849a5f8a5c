// All native kernels, as one unit to compile.
#include "adam.h"
#include "plain.h"
