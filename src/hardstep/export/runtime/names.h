/* Names of what is compiled for every instruction set: included first of all, with ISA defined. */
#undef HS_PASTE
#undef HS_PASTED
#undef HS_AS
#define HS_PASTE(a, b) a##_any_##b
#define HS_PASTED(a, b) HS_PASTE(a, b)
#define HS_AS(name) HS_PASTED(name, ISA)
