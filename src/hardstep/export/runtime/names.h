/* Names of what is compiled for every instruction set: included first of all, with ISA defined; rows.h ends them. */
#define HS_PASTE(a, b) a##_any_##b
#define HS_PASTED(a, b) HS_PASTE(a, b)
#define HS_AS(name) HS_PASTED(name, ISA)
