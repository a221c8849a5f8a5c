// All native kernels, as one unit to compile.
#include "adam.h"
#include "draw.h"
#include "gru.h"
#include "plain.h"
